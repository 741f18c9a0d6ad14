"""Looks for stored bytes that belong to no upload, a few parts of storage at a time, and puts them aside.

They are never deleted: nothing in the catalog says what they are, and the catalog may be the one that is wrong. Whether
it is shows in how many of a whole lot they are, so what is found waits until its lot was searched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from daemon.catalog.interface import Catalog
from daemon.storage.interface import Inventory, Stored

SHARDS_PER_PASS = 8
"""Parts of storage listed for orphans in one pass, so that a pass costs alike whenever it runs: with 256 parts and
the default interval all have been searched after three hours, in a process that runs for so long."""

SEARCHED_PER_PASS = 500
"""Of the files listed: a millisecond or two. With a million of them all have been searched after a week."""

LOT_FILES = 10_000
"""So many stored files, or all where there are fewer, are judged together: upload ids are spread over the parts of
storage by chance, so a lot is as good as the whole. It is also the most that is kept of what was found."""

ORPHAN_AGE_S = 24 * 3600
"""Bytes without an upload are left alone for so long, whatever is under way with them."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something stored under a `name` in a `shard` that belongs to no upload."""

    shard: int
    name: str


@dataclass(frozen=True, slots=True)
class Lot:
    """Stored files that are judged together: in how many shards, how many, and what was found among them."""

    shards: int = 0
    searched: int = 0
    found: tuple[Orphan, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the search of a `lot` goes on: at the `rest` of what was listed of `shard`, and then in the next one."""

    shard: int = -1
    rest: Sequence[Stored] = ()
    lot: Lot = Lot()


class OrphanSearch:
    """One pass's search, at one time. Raises what catalog and storage raise."""

    def __init__(
        self, catalog: Catalog, inventory: Inventory, is_live: Callable[[int], bool], now_ms: int, place: Place
    ) -> None:
        """`is_live` tells whether an upload is in use."""
        self._catalog = catalog
        self._inventory = inventory
        self._is_live = is_live
        self._before_ms = now_ms - ORPHAN_AGE_S * 1000
        self.place = place
        """Where the next pass's search begins."""

    async def find(self) -> Lot:
        """Search on; the lot if that was the last of it, else an empty one."""
        files_left, shards_left = SEARCHED_PER_PASS, SHARDS_PER_PASS
        while not self._is_whole and files_left and (self.place.rest or shards_left):
            if self.place.rest:
                files_left -= await self._search(min(files_left, LOT_FILES - self.place.lot.searched))
            else:
                shards_left -= 1
                await self._list_next()
        if not self._is_whole:
            return Lot()
        lot, self.place = self.place.lot, replace(self.place, lot=Lot())
        return lot

    async def put_aside(self, orphan: Orphan) -> bool:
        """Quarantine it; False: it was deleted since it was found."""
        try:
            await self._inventory.quarantine(orphan.shard, orphan.name)
        except FileNotFoundError:
            return False
        return True

    @property
    def _is_whole(self) -> bool:
        lot = self.place.lot
        return lot.searched >= LOT_FILES or (lot.shards >= self._inventory.shards and not self.place.rest)

    async def _list_next(self) -> None:
        lot = self.place.lot
        shard = (self.place.shard + 1) % self._inventory.shards
        self.place = Place(shard, await self._inventory.stored(shard), replace(lot, shards=lot.shards + 1))

    async def _search(self, count_max: int) -> int:
        """Look at the next files of a shard; how many there were."""
        lot, rest = self.place.lot, self.place.rest
        some = rest[:count_max]
        found = (*lot.found, *await self._orphans(some))
        self.place = Place(self.place.shard, rest[count_max:], Lot(lot.shards, lot.searched + len(some), found))
        return len(some)

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
            modified_ms = await self._inventory.modified_ms(shard, each.name)
            if modified_ms is not None and modified_ms < self._before_ms:
                orphans.append(Orphan(shard, each.name))
        return orphans
