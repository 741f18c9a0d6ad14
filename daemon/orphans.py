"""Looks for stored bytes that belong to no upload, a few parts of storage at a time, and puts them aside.

They are never deleted: nothing in the catalog says what they are, and the catalog may be the one that is wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from daemon.catalog.interface import Catalog
from daemon.storage.interface import Storage, Stored

SHARDS_PER_PASS = 8
"""Parts of storage listed for orphans in one pass, so that a pass costs alike whenever it runs: with 256 parts and
the default interval all have been searched after three hours."""

SEARCHED_PER_PASS = 500
"""Of the files listed: a millisecond or two. With a million of them all have been searched after a week."""

ORPHAN_AGE_S = 24 * 3600
"""Bytes without an upload are left alone for so long, whatever is under way with them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the search goes on: at the `rest` of what was listed of `shard`, and then in the next one."""

    shard: int = -1
    rest: Sequence[Stored] = ()


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something stored under a `name` in a `shard` that belongs to no upload."""

    shard: int
    name: str


class OrphanSearch:
    """One pass's search, at one time. Raises what catalog and storage raise."""

    def __init__(
        self, catalog: Catalog, storage: Storage, is_live: Callable[[int], bool], now_ms: int, place: Place
    ) -> None:
        """`is_live` tells whether an upload is in use."""
        self._catalog = catalog
        self._storage = storage
        self._is_live = is_live
        self._before_ms = now_ms - ORPHAN_AGE_S * 1000
        self._shards_left = min(SHARDS_PER_PASS, storage.shards)
        self.place = place
        """Where the next pass's search begins."""
        self.searched = 0
        """Stored files that were looked at."""

    async def find(self) -> list[Orphan]:
        """The orphans among the next stored files."""
        found: list[Orphan] = []
        while some := await self._next_stored(SEARCHED_PER_PASS - self.searched):
            self.searched += len(some)
            found += await self._orphans(some)
        return found

    async def put_aside(self, orphan: Orphan) -> bool:
        """Quarantine it; False: it was deleted since it was found."""
        try:
            await self._storage.quarantine(orphan.shard, orphan.name)
        except FileNotFoundError:
            return False
        return True

    async def _next_stored(self, count_max: int) -> Sequence[Stored]:
        """The next stored files, all of one shard; none when the pass has searched enough."""
        while not self.place.rest and self._shards_left:
            self._shards_left -= 1
            shard = (self.place.shard + 1) % self._storage.shards
            self.place = Place(shard, await self._storage.stored(shard))
        some = self.place.rest[:count_max]
        self.place = replace(self.place, rest=self.place.rest[count_max:])
        return some

    async def _orphans(self, some: Sequence[Stored]) -> list[Orphan]:
        """Those that belong to no upload and are old enough; a name that storage does not give belongs to none."""
        known = await self._catalog.existing([each.upload_id for each in some if each.upload_id is not None])
        unknown = [
            each
            for each in some
            if each.upload_id is None or not (each.upload_id in known or self._is_live(each.upload_id))
        ]
        shard = self.place.shard
        orphans = []
        for each in unknown:
            # Asked of these few alone: of all it would cost as much as the rest of the pass.
            modified_ms = await self._storage.modified_ms(shard, each.name)
            if modified_ms is not None and modified_ms < self._before_ms:
                orphans.append(Orphan(shard, each.name))
        return orphans
