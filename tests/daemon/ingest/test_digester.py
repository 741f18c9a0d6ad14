"""SHA-256 behind the durable bytes: of real files, however they become durable."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from daemon.adapters.clock import SystemClock
from daemon.adapters.files import SystemFiles
from daemon.adapters.threads import SystemThreads
from daemon.ingest import digester as digester_module
from daemon.ingest.digester import HASH_BYTES_PER_S, Digester
from daemon.ingest.live_upload import LiveUpload, Piece
from daemon.storage.interface import Reading
from daemon.storage.local.storage import LocalStorage
from protocol.checksum import Buffer
from tests.support.catalog_samples import DEVICE, first_bytes
from tests.support.catalog_samples import upload as record
from tests.support.deadlines import DEADLINE_S
from tests.support.loop_turns import turns
from tests.support.recorded_files import within, write

CONTENT = bytes(range(256)) * 4


class Heard:
    """What the digester reports."""

    def __init__(self) -> None:
        self.digests: list[tuple[LiveUpload, bytes]] = []
        self.failures: list[tuple[LiveUpload, str]] = []
        self.changed = asyncio.Event()

    def whole(self, upload: LiveUpload, digest: bytes) -> None:
        self.digests.append((upload, digest))
        self.changed.set()

    def failed(self, upload: LiveUpload, error: OSError) -> None:
        self.failures.append((upload, str(error)))
        self.changed.set()

    async def next(self) -> None:
        await asyncio.wait_for(self.changed.wait(), DEADLINE_S)
        self.changed.clear()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digester_module, "STEP_BYTES", 100)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[LocalStorage]:
    opened = LocalStorage(tmp_path, SystemFiles(), SystemThreads(), SystemClock(), open_files_max=4)
    yield opened
    await opened.close()


@pytest.fixture
async def heard() -> Heard:
    return Heard()


@pytest.fixture
async def digester(storage: LocalStorage, heard: Heard) -> AsyncIterator[Digester]:
    made = Digester(storage.contents, SystemThreads())
    running = asyncio.ensure_future(made.run(heard.whole, heard.failed))
    yield made
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await made.close()


async def stored(storage: LocalStorage, upload_id: int, content: bytes = CONTENT, device: str = DEVICE) -> LiveUpload:
    """An upload all of whose bytes are durable."""
    await within(write(storage.staging, upload_id, 0, content))
    ranges = first_bytes(len(content)) if content else ()
    return LiveUpload(record(id=upload_id, device=device, size=len(content), ranges=ranges))


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@pytest.mark.parametrize("size", [1, 99, 100, 101, 1000])
async def test_a_durable_upload_is_hashed_whole(
    digester: Digester, storage: LocalStorage, heard: Heard, size: int
) -> None:
    upload = await stored(storage, 1, CONTENT[:size])
    digester.follow(upload)
    await heard.next()
    assert heard.digests == [(upload, sha256(CONTENT[:size]))]


async def test_an_upload_without_bytes_has_a_digest_too(digester: Digester, heard: Heard) -> None:
    upload = LiveUpload(record(size=0))
    digester.follow(upload)
    await heard.next()
    assert heard.digests == [(upload, sha256(b""))]


async def test_bytes_are_hashed_once_they_are_durable(digester: Digester, storage: LocalStorage, heard: Heard) -> None:
    upload = await stored(storage, 1)
    for durable in (150, 150, 300):
        upload.durable = first_bytes(durable)
        digester.follow(upload)
        async with asyncio.timeout(DEADLINE_S):
            while round(digester.remaining_s(upload) * HASH_BYTES_PER_S) > len(CONTENT) - durable:
                await storage.space()
        assert heard.digests == []
    upload.durable = first_bytes(len(CONTENT))
    digester.follow(upload)
    await heard.next()
    assert heard.digests == [(upload, sha256(CONTENT))]


async def test_bytes_that_come_in_order_are_hashed_as_they_come_and_not_read_back(
    digester: Digester, storage: LocalStorage, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldReads(storage, monkeypatch)
    upload = LiveUpload(record(size=len(CONTENT), sha256_expected=sha256(CONTENT)))
    done: list[int] = []
    digester.follow(upload)
    for start in range(0, len(CONTENT), 256):
        pieces: list[Buffer] = [CONTENT[start : start + 100], memoryview(CONTENT)[start + 100 : start + 256]]
        assert digester.take(upload, Piece(start, pieces), partial(done.append, start))
    await heard.next()
    assert heard.digests == [(upload, sha256(CONTENT))]
    assert done == list(range(0, len(CONTENT), 256))
    assert held.opened == []


async def test_a_wrong_digest_is_reported_once_all_bytes_are_durable(digester: Digester, heard: Heard) -> None:
    upload = LiveUpload(record(size=len(CONTENT), sha256_expected=bytes(32)))
    hashed = asyncio.Event()
    digester.follow(upload)
    assert digester.take(upload, Piece(0, [CONTENT]), hashed.set)
    async with asyncio.timeout(DEADLINE_S):
        await hashed.wait()
        await turns()
    assert heard.digests == []
    upload.durable = first_bytes(len(CONTENT))
    digester.follow(upload)
    await heard.next()
    assert heard.digests == [(upload, sha256(CONTENT))]


async def test_only_the_next_bytes_of_an_upload_that_is_followed_are_taken(digester: Digester) -> None:
    upload, other = LiveUpload(record(size=10)), LiveUpload(record(size=10))
    assert not digester.take(upload, Piece(0, [b"ab"]), pytest.fail)
    digester.follow(upload)
    assert not digester.take(other, Piece(0, [b"ab"]), pytest.fail)
    assert not digester.take(upload, Piece(1, [b"b"]), pytest.fail)
    assert digester.take(upload, Piece(0, [b"ab"]), lambda: None)
    assert not digester.take(upload, Piece(0, [b"ab"]), pytest.fail)
    assert digester.take(upload, Piece(2, [b"c"]), lambda: None)


async def test_after_a_gap_bytes_are_read_back_and_later_ones_hashed_as_they_come(
    digester: Digester, storage: LocalStorage, heard: Heard
) -> None:
    upload = await stored(storage, 1, CONTENT[:500])
    upload.size, upload.sha256_expected = len(CONTENT), sha256(CONTENT)
    digester.follow(upload)
    async with asyncio.timeout(DEADLINE_S):
        while not digester.take(upload, Piece(500, [CONTENT[500:]]), lambda: None):
            await storage.space()
    await heard.next()
    assert heard.digests == [(upload, sha256(CONTENT))]


async def test_an_unknown_size_delays_the_digest(digester: Digester, storage: LocalStorage, heard: Heard) -> None:
    unknown, other = await stored(storage, 1), await stored(storage, 2)
    unknown.size = None
    digester.follow(unknown)
    digester.follow(other)
    await heard.next()
    assert [upload for upload, _ in heard.digests] == [other]
    unknown.size = len(CONTENT)
    digester.follow(unknown)
    await heard.next()
    assert heard.digests[1:] == [(unknown, sha256(CONTENT))]


async def test_uploads_take_turns(digester: Digester, storage: LocalStorage, heard: Heard) -> None:
    large, small = await stored(storage, 1), await stored(storage, 2, CONTENT[:100])
    digester.follow(large)
    digester.follow(small)
    await heard.next()
    assert heard.digests == [(small, sha256(CONTENT[:100]))]
    await heard.next()
    assert heard.digests[1:] == [(large, sha256(CONTENT))]


async def test_devices_take_turns_whatever_the_number_of_their_uploads(
    digester: Digester, storage: LocalStorage, heard: Heard
) -> None:
    greedy = [await stored(storage, number, CONTENT[:100]) for number in range(1, 30)]
    modest = await stored(storage, 99, CONTENT[:300], device="modest")
    for upload in (*greedy, modest):
        digester.follow(upload)
    while len(heard.digests) < 30:
        await heard.next()
    order = [upload.id for upload, _ in heard.digests]
    assert order.index(modest.id) <= 3
    assert [each for each in order if each != modest.id] == [upload.id for upload in greedy]


async def test_the_time_left_is_that_of_the_bytes_left(digester: Digester, storage: LocalStorage) -> None:
    upload = await stored(storage, 1)
    upload.size = 2 * HASH_BYTES_PER_S
    assert digester.remaining_s(upload) == 2.0
    assert digester.remaining_s(LiveUpload(record(size=None))) == 0.0


async def test_missing_bytes_fail_their_upload_and_no_other(
    digester: Digester, storage: LocalStorage, heard: Heard
) -> None:
    short, gone, well = await stored(storage, 1), await stored(storage, 2), await stored(storage, 3)
    short.size, short.durable = 2000, first_bytes(2000)
    await storage.contents.remove(2)
    for upload in (short, gone, well):
        digester.follow(upload)
    while len(heard.digests) + len(heard.failures) < 3:
        await heard.next()
    assert heard.digests == [(well, sha256(CONTENT))]
    assert {upload for upload, _ in heard.failures} == {short, gone}
    assert "only 24 of 100 bytes at 1000 are stored" in [detail for _, detail in heard.failures]


class HeldReads:
    """Lets a test do something while an upload's bytes are being read."""

    def __init__(self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.opened: list[int] = []
        self._open = storage.contents.open
        monkeypatch.setattr(storage.contents, "open", self._held)

    async def _held(self, upload_id: int) -> Reading:
        self.opened.append(upload_id)
        self.started.set()
        await self.may_go_on.wait()
        return await self._open(upload_id)


async def test_an_upload_forgotten_during_a_step_is_not_reported(
    digester: Digester, storage: LocalStorage, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, gone, later = [await stored(storage, number, CONTENT[:100]) for number in (1, 2, 3)]
    held = HeldReads(storage, monkeypatch)
    for upload in (whole, gone, later):
        digester.follow(upload)
    await asyncio.wait_for(held.started.wait(), DEADLINE_S)
    digester.forget(whole)
    digester.forget(gone)
    held.may_go_on.set()
    await heard.next()
    assert [upload for upload, _ in heard.digests] == [later]
    assert held.opened == [1, 3], "what was forgotten is not even read"


async def test_an_upload_that_is_opened_again_is_hashed_after_the_earlier_one_failed(
    digester: Digester, storage: LocalStorage, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    elder = await stored(storage, 1, CONTENT[:50])
    elder.durable = first_bytes(60)
    held = HeldReads(storage, monkeypatch)
    digester.follow(elder)
    await asyncio.wait_for(held.started.wait(), DEADLINE_S)
    heir = LiveUpload(record(size=50, ranges=first_bytes(50)))
    digester.forget(elder)
    digester.follow(heir)
    held.may_go_on.set()
    await heard.next()
    assert heard.digests == [(heir, sha256(CONTENT[:50]))]
    assert heard.failures == []


async def test_the_digester_may_stop_while_the_thread_hashes(
    storage: LocalStorage, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashing, may_go_on = threading.Event(), threading.Event()

    class SlowHash:
        def update(self, data: bytes) -> None:
            hashing.set()
            assert may_go_on.wait(DEADLINE_S)

    monkeypatch.setattr(hashlib, "sha256", SlowHash)
    digester = Digester(storage.contents, SystemThreads())
    running = asyncio.ensure_future(digester.run(heard.whole, heard.failed))
    digester.follow(await stored(storage, 1))
    assert await asyncio.to_thread(hashing.wait, DEADLINE_S)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    may_go_on.set()
    await asyncio.wait_for(digester.close(), DEADLINE_S)
    assert heard.digests == []
