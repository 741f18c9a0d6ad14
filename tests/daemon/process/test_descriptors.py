"""How descriptors are divided: everything asked for, or shares that leave each part its work."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.process.descriptors import OPEN_FILES_MAX, RESERVE, Budget, Demand, divide

DEMAND = Demand(connections=10_000, handshakes=1000, http_connections=256, downloads=64)


def test_with_enough_each_part_gets_what_it_asks_for() -> None:
    budget = divide(DEMAND.total, DEMAND)
    assert not budget.is_short
    assert (budget.connections, budget.handshakes, budget.http) == (10_000, 1000, DEMAND.http)
    assert budget.open_files == OPEN_FILES_MAX
    assert str(budget) == "15608, of which 15608 may be needed"


def test_with_too_few_each_gets_a_share_and_the_operator_the_numbers() -> None:
    budget = divide(1024, DEMAND)
    assert budget.is_short
    assert budget == Budget(1024, DEMAND.total, connections=448, handshakes=112, http=112, open_files=224)
    assert str(budget).startswith("1024, but the settings may need 15608: only 448 connections, 112 handshakes,")


def test_few_connections_keep_all_their_places() -> None:
    assert divide(1024, Demand(connections=50, handshakes=1000, http_connections=256, downloads=64)).connections == 50


@given(st.integers(16, 20_000), st.integers(1, 20_000), st.integers(1, 2000), st.integers(1, 1000))
def test_the_parts_never_take_more_than_there_is(limit: int, connections: int, handshakes: int, downloads: int) -> None:
    demand = Demand(connections, handshakes, 256, downloads)
    budget = divide(limit, demand)
    parts = (budget.connections, budget.handshakes, budget.http, budget.open_files)
    assert sum(parts) <= limit - min(RESERVE, limit // 4) + 2
    assert min(budget.connections, budget.handshakes, budget.open_files) >= 1
    assert budget.connections <= connections
