"""Fair shares: at most so many of each owner, in order, and nothing is lost."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.shares import share_out


@given(st.lists(st.tuples(st.integers(0, 3), st.integers())), st.integers(1, 5))
def test_the_first_of_each_owner_are_chosen_and_nothing_is_lost(items: list[tuple[int, int]], most: int) -> None:
    chosen, others = share_out(items, lambda item: item[0], most)
    for owner in range(4):
        theirs = [item for item in items if item[0] == owner]
        assert [item for item in chosen if item[0] == owner] == theirs[:most]
        assert [item for item in others if item[0] == owner] == theirs[most:]


def test_items_keep_their_order() -> None:
    assert share_out(["a1", "b1", "a2", "a3", "b2"], lambda item: item[0], 2) == (["a1", "b1", "a2", "b2"], ["a3"])
