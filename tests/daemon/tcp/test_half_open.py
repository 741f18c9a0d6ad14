"""Who makes room: by size of the source, then by age; against a model that searches."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.tcp.half_open import HalfOpen


def filled(*members: tuple[str, str]) -> HalfOpen[str]:
    half_open: HalfOpen[str] = HalfOpen()
    for member, source in members:
        half_open.add(member, source)
    return half_open


def test_the_oldest_of_the_fullest_source() -> None:
    half_open = filled(("a", "one"), ("b", "two"), ("c", "two"))
    assert half_open.oldest(half_open.fullest) == "b"


def test_one_that_leaves_is_forgotten() -> None:
    half_open = filled(("a", "one"), ("b", "two"), ("c", "two"))
    half_open.discard("b")
    half_open.discard("b")
    assert "b" not in half_open
    assert half_open.source("b") is None
    assert half_open.oldest("two") == "c"
    assert (half_open.count("two"), half_open.count("three"), len(half_open)) == (1, 0, 2)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.sampled_from("abcd"))))
def test_the_fullest_source_is_always_known(steps: list[tuple[bool, int, str]]) -> None:
    half_open: HalfOpen[int] = HalfOpen()
    model: dict[int, str] = {}
    for enters, member, source in steps:
        half_open.discard(member)
        model.pop(member, None)
        if enters:
            half_open.add(member, source)
            model[member] = source
        assert len(half_open) == len(model)
        if model:
            fullest = half_open.fullest
            sources = list(model.values())
            assert sources.count(fullest) == half_open.count(fullest) == max(map(sources.count, sources))
            assert half_open.oldest(fullest) == next(each for each, where in model.items() if where == fullest)
