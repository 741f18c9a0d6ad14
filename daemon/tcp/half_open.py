"""Connections that are not admitted yet, by source and age, so that room is made at the expense of the greediest."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)


class HalfOpen(Generic[Member]):
    """Every call takes constant time: a crowd of strangers must not make the next one dearer."""

    __slots__ = ("_fullest", "_members", "_of_size", "_sources")

    def __init__(self) -> None:
        self._sources: dict[str, dict[Member, None]] = {}
        self._members: dict[Member, str] = {}
        # Sources by how many members they have, so that the fullest is found without a search.
        self._of_size: dict[int, dict[str, None]] = {}
        self._fullest = 0

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: Member) -> bool:
        return member in self._members

    def count(self, source: str) -> int:
        """How many members the source has."""
        return len(self._sources.get(source, ()))

    def source(self, member: Member) -> str | None:
        """Where the member comes from; None for one that is not here."""
        return self._members.get(member)

    def add(self, member: Member, source: str) -> None:
        """The member is the youngest of its source."""
        members = self._sources.setdefault(source, {})
        members[member] = None
        self._members[member] = source
        self._resized(source, len(members) - 1, len(members))

    def discard(self, member: Member) -> None:
        """The member is admitted or gone; harmless when it is not here."""
        source = self._members.pop(member, None)
        if source is None:
            return
        members = self._sources[source]
        del members[member]
        self._resized(source, len(members) + 1, len(members))
        if not members:
            del self._sources[source]

    def oldest(self, source: str) -> Member:
        """The oldest member of the source. Raises KeyError when it has none."""
        return next(iter(self._sources[source]))

    @property
    def fullest(self) -> str:
        """The source with the most members. Raises KeyError when there are none."""
        return next(iter(self._of_size[self._fullest]))

    def _resized(self, source: str, before: int, after: int) -> None:
        if before:
            sources = self._of_size[before]
            del sources[source]
            if not sources:
                del self._of_size[before]
        if after:
            self._of_size.setdefault(after, {})[source] = None
        # One member came or went, so the fullest source has this one's size, or nothing is left of its old size.
        if after > self._fullest or self._fullest not in self._of_size:
            self._fullest = after
