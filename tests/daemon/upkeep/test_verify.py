"""Complete files are read back and compared with the catalog's digests."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Generic

import pytest

from daemon.adapters.threads import Item, Lane, SystemThreads, Work
from daemon.catalog.records import Completion, State
from daemon.storage.interface import Reading
from daemon.upkeep import verify
from daemon.upkeep.verify import STEP_BYTES, Checked, Verdict, Verifier, VerifyProgress
from protocol.checksum import crc32c
from protocol.ranges import DigestedRange
from tests.support.catalog_samples import REQUEST
from tests.support.fake_machine import NOW_MS, FakeClock
from tests.support.populated_store import Keeping, keep

LARGE = bytes(range(256)) * (2 * STEP_BYTES // 256) + b"tail"


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keep(tmp_path) as opened:
        yield opened


@pytest.fixture
def verifier(keeping: Keeping) -> Verifier:
    return Verifier(keeping.catalog, keeping.storage.contents, SystemThreads(), FakeClock())


async def add(
    keeping: Keeping,
    upload_id: int,
    content: bytes = b"content",
    *,
    tenant: str = "default",
    device: str = "pump-7",
    sha256: bytes | None = None,
) -> None:
    """A complete file, whose right digests the catalog has unless a SHA-256 is given."""
    request = replace(
        REQUEST,
        upload_id=upload_id,
        tenant=tenant,
        device=device,
        name=f"file-{upload_id}",
        size=len(content),
        now_ms=NOW_MS,
    )
    await keeping.catalog.open(request)
    digest = crc32c(content)
    ranges = (DigestedRange(0, len(content), digest),) if content else ()
    await keeping.catalog.complete(Completion(upload_id, 1, len(content), digest, sha256, ranges, NOW_MS))
    if content:
        keeping.path(upload_id).write_bytes(content)


async def found(
    verifier: Verifier, tenant: str | None = None, device: str | None = None
) -> dict[str, tuple[Verdict, str]]:
    """Verdict and detail by name."""
    return {
        each.name: (each.verdict, each.detail)
        async for each in verifier.verify(tenant, device)
        if isinstance(each, Checked)
    }


class TestVerdict:
    async def test_a_whole_file_is_ok(self, keeping: Keeping, verifier: Verifier) -> None:
        await add(keeping, 1, LARGE, sha256=hashlib.sha256(LARGE).digest())
        results = [each async for each in verifier.verify(None, None)]
        assert results == [Checked(f"{1:016x}", "default", "pump-7", "file-1", len(LARGE), Verdict.OK)]

    async def test_a_file_without_bytes_is_ok(self, keeping: Keeping, verifier: Verifier) -> None:
        await add(keeping, 1, b"", sha256=hashlib.sha256().digest())
        assert await found(verifier) == {"file-1": (Verdict.OK, "")}

    async def test_a_changed_byte_is_damage(self, keeping: Keeping, verifier: Verifier) -> None:
        await add(keeping, 1, LARGE)
        keeping.path(1).write_bytes(LARGE[:-1] + b"?")
        verdict, detail = (await found(verifier))["file-1"]
        assert verdict is Verdict.DAMAGED
        assert detail == f"CRC32C is {crc32c(LARGE[:-1] + b'?'):08x} instead of {crc32c(LARGE):08x}"

    async def test_another_sha256_is_damage(self, keeping: Keeping, verifier: Verifier) -> None:
        await add(keeping, 1, sha256=hashlib.sha256(b"other").digest())
        assert await found(verifier) == {
            "file-1": (Verdict.DAMAGED, "SHA-256 differs from the one that the device gave")
        }

    async def test_a_short_file_is_damage(self, keeping: Keeping, verifier: Verifier) -> None:
        await add(keeping, 1, LARGE)
        keeping.path(1).write_bytes(LARGE[:STEP_BYTES])
        expected = f"ends after {STEP_BYTES} of {len(LARGE)} bytes"
        assert await found(verifier) == {"file-1": (Verdict.DAMAGED, expected)}

    async def test_bytes_beyond_the_end_do_not_matter(self, keeping: Keeping, verifier: Verifier) -> None:
        await add(keeping, 1, b"content")
        keeping.path(1).write_bytes(b"content and more")
        assert await found(verifier) == {"file-1": (Verdict.OK, "")}

    async def test_a_file_that_is_gone_is_missing(self, keeping: Keeping, verifier: Verifier) -> None:
        await add(keeping, 1)
        keeping.path(1).unlink()
        assert await found(verifier) == {"file-1": (Verdict.MISSING, "its file is gone")}

    async def test_a_read_error_is_reported_with_its_offset(self, keeping: Keeping, verifier: Verifier) -> None:
        await add(keeping, 1)
        keeping.path(1).unlink()
        keeping.path(1).mkdir()
        verdict, detail = (await found(verifier))["file-1"]
        assert verdict is Verdict.UNREADABLE
        assert detail.startswith("at byte 0: Is a directory")

    async def test_the_check_continues_after_a_bad_file(self, keeping: Keeping, verifier: Verifier) -> None:
        for upload_id in (1, 2, 3):
            await add(keeping, upload_id)
        keeping.path(2).unlink()
        verdicts = {name: verdict for name, (verdict, _) in (await found(verifier)).items()}
        assert verdicts == {"file-1": Verdict.OK, "file-2": Verdict.MISSING, "file-3": Verdict.OK}


class TestSelection:
    async def test_only_complete_files_are_read(self, keeping: Keeping, verifier: Verifier) -> None:
        await keeping.add(1, NOW_MS, State.RECEIVING, b"half")
        await keeping.add(2, NOW_MS, State.REJECTED, b"wrong")
        await add(keeping, 3)
        assert (await found(verifier)).keys() == {"file-3"}

    @pytest.mark.parametrize(
        ("tenant", "device", "names"),
        [
            (None, None, {"file-1", "file-2", "file-3", "file-4"}),
            ("default", None, {"file-1", "file-2", "file-3"}),
            ("default", "pump-7", {"file-1", "file-2"}),
            ("acme", "pump-7", {"file-4"}),
        ],
    )
    async def test_filters_and_pages(
        self,
        keeping: Keeping,
        verifier: Verifier,
        monkeypatch: pytest.MonkeyPatch,
        tenant: str | None,
        device: str | None,
        names: set[str],
    ) -> None:
        monkeypatch.setattr(verify, "PAGE_ROWS", 1)
        await add(keeping, 1)
        await add(keeping, 2)
        await add(keeping, 3, device="pump-8")
        await add(keeping, 4, tenant="acme")
        assert (await found(verifier, tenant, device)).keys() == names

    @pytest.mark.parametrize("ends", [True, False])
    async def test_a_file_deleted_meanwhile_is_not_reported(self, keeping: Keeping, ends: bool) -> None:
        class Vanishing:
            """A storage whose file goes away at the moment it is wanted."""

            async def open(self, upload_id: int) -> Reading:
                if ends:
                    await keeping.catalog.end(upload_id, State.DELETED, NOW_MS)
                    await keeping.catalog.purge_tombstones(NOW_MS + 1, 10)
                raise FileNotFoundError(upload_id)

            async def remove(self, upload_id: int) -> int:
                raise AssertionError("a verification removes nothing")

        await add(keeping, 1)
        verifier = Verifier(keeping.catalog, Vanishing(), SystemThreads(), FakeClock())
        assert (await found(verifier)).keys() == (set() if ends else {"file-1"})


class TestPass:
    async def test_progress_is_reported_within_a_file(
        self, keeping: Keeping, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(verify, "PROGRESS_BYTES", STEP_BYTES)
        await add(keeping, 1)
        await add(keeping, 2, LARGE)
        results = [each async for each in verifier.verify(None, None)]
        progress = [each for each in results if isinstance(each, VerifyProgress)]
        assert progress == [VerifyProgress(1, 7 + STEP_BYTES), VerifyProgress(1, 7 + 2 * STEP_BYTES)]

    async def test_an_abandoned_check_leaves_nothing_open(
        self, keeping: Keeping, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(verify, "PROGRESS_BYTES", 1)
        await add(keeping, 1, LARGE)
        async with aclosing(verifier.verify(None, None)) as results:
            assert isinstance(await anext(results), VerifyProgress)
        assert "verify" not in {thread.name for thread in threading.enumerate()}

    async def test_a_check_can_be_cancelled_during_a_step(self, keeping: Keeping) -> None:
        lanes = HeldThreads()
        await add(keeping, 1)
        verifier = Verifier(keeping.catalog, keeping.storage.contents, lanes, FakeClock())
        task = asyncio.get_running_loop().create_task(found(verifier))
        await lanes.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lanes.is_closed


class HeldThreads:
    """Makes lanes that work only when they are closed."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.is_closed = False

    def lane(self, name: str, work: Work[Item]) -> Lane[Item]:
        return HeldLane(self, work)


class HeldLane(Generic[Item]):
    def __init__(self, threads: HeldThreads, work: Work[Item]) -> None:
        self._threads = threads
        self._work = work
        self._items: list[Item] = []

    def put(self, item: Item) -> None:
        self._items.append(item)
        self._threads.asked.set()

    async def close(self) -> None:
        self._work(self._items)()
        self._threads.is_closed = True
