"""Fair shares of a batch, so that nobody fills it alone."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def share_out(items: Iterable[Item], owner_of: Callable[[Item], Hashable], most: int) -> tuple[list[Item], list[Item]]:
    """The first `most` items of each owner, and the others, both in their order."""
    chosen: list[Item] = []
    others: list[Item] = []
    counts: Counter[Hashable] = Counter()
    for item in items:
        owner = owner_of(item)
        counts[owner] += 1
        (chosen if counts[owner] <= most else others).append(item)
    return chosen, others
