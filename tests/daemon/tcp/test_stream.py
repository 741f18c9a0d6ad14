"""What a device gets on an open stream until it ends, and what is left of its upload then."""

import hashlib

import pytest

from daemon.catalog.interface import CatalogFailed
from protocol import codec, frames
from protocol.constants import ChecksumKind
from protocol.errors import ErrorCode
from tests.support.device_site import listening, on_uvloop, only
from tests.support.raw_device import chunk, open_request
from tests.support.server_rig import corrupt
from tests.support.waiting import until

FAILED = CatalogFailed("the disk hangs")


@on_uvloop
class TestStreams:
    async def test_chunks_are_counted_by_their_checksum(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            wire.send(corrupt(1, 0, b"abc"))
            assert (await wire.hear(frames.Nack, 1)).code == ErrorCode.CHUNK_CORRUPT
            await wire.upload(1, 0, b"abc")
            metrics = site.site.bench.metrics
            assert (metrics.received_bytes[ChecksumKind.SUM8], metrics.received_chunks[ChecksumKind.SUM8]) == (3, 1)
            assert metrics.nacks[ErrorCode.CHUNK_CORRUPT] == 1
            assert metrics.acks == 1

    async def test_bytes_that_are_missing_at_finish_are_named(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            wire.say(frames.Finish(3), 1)
            nack = await wire.hear(frames.Nack, 1)
            assert (nack.code, nack.start_byte, nack.end_byte) == (ErrorCode.INCOMPLETE, 0, 2)

    async def test_a_digest_that_takes_long_is_announced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("daemon.ingest.digester.HASH_BYTES_PER_S", 1)
        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            await wire.upload(1, 0, b"abc")
            wire.say(frames.Finish(3, sha256=hashlib.sha256(b"abc").digest()), 1)
            assert (await wire.hear(frames.Verifying, 1)).wait_ms == 3000
            await wire.hear(frames.Finished, 1)

    async def test_a_stream_that_breaks_the_protocol_lets_its_upload_go(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            opened = await wire.open(1, open_request("log", 2))
            wire.send(chunk(1, 0, b"abc"))
            assert (await wire.hear(frames.Error, 1)).code == ErrorCode.CHUNK_BEYOND_END
            assert not site.site.bench.live.is_live(opened.upload_id)
            assert site.site.bench.metrics.errors[ErrorCode.CHUNK_BEYOND_END] == 1

    async def test_what_comes_for_a_stream_that_ended_meanwhile_is_let_go(self) -> None:
        async with listening() as site:
            bench = site.site.bench
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            session = only(site)
            session.ended(1)
            wire.send(chunk(1, 0, bytes(40_000)) + codec.encode(frames.Finish(40_000), 1))
            wire.say(frames.Abort(), 1)
            wire.say(frames.Ping(1))
            await wire.hear(frames.Pong)
            assert bench.storage.write_count == 0

    async def test_an_abort_that_fails_ends_the_stream(self) -> None:
        async with listening() as site:
            site.site.bench.catalog.gates["end"].failures.append(FAILED)
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            wire.say(frames.Abort(), 1)
            assert (await wire.hear(frames.Error, 1)).code == ErrorCode.STORAGE_FAILED
            await wire.open(2, open_request("log"))

    async def test_an_abort_that_fails_too_late_has_no_answer(self) -> None:
        async with listening() as site:
            end = site.site.bench.catalog.gates["end"]
            end.before.clear()
            end.failures.append(FAILED)
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            wire.say(frames.Abort(), 1)
            await until(lambda: end.asked)
            (connection,) = site.server._connections
            connection.abort()
            end.before.set()
            await until(lambda: len(site.site.bench.tasks) == 0)
            assert site.site.bench.metrics.errors.total() == 0
