"""Uploads of a sample file, complete or almost complete."""

import errno
import hashlib
from dataclasses import replace

from daemon.catalog.records import State
from daemon.ingest.live_upload import LiveUpload
from protocol.checksum import crc32c
from tests.support.catalog_samples import REPLACE, REQUEST
from tests.support.gated_catalog import Gate
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import Bench
from tests.support.upload_streams import Stream

CONTENT = bytes(index * 7 % 251 for index in range(100))
CRC = crc32c(CONTENT)
SHA256 = hashlib.sha256(CONTENT).digest()
UNSIZED = replace(REQUEST, size=None)
FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


async def complete(bench: Bench, content: bytes = CONTENT) -> int:
    """Complete an upload, and return its id."""
    upload, stream = await bench.open(replace(REQUEST, size=len(content), disposition=REPLACE))
    bench.send(upload, 0, content)
    bench.uploads.finish(upload, len(content))
    await until(lambda: stream.completed is not None)
    return upload.id


async def completed_unanswered(held: Bench) -> tuple[LiveUpload, Stream, Gate]:
    """An upload that the catalog has completed, but whose answer arrives only when the gate's `after` is set."""
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, 100)
    gate = held.catalog.gates["complete"]
    gate.after.clear()
    held.storage.write_next()
    while not gate.asked:
        held.storage.sync_next()
        await turns()
    return upload, stream, gate


async def state(bench: Bench, upload_id: int = 1) -> State:
    found = await bench.catalog.get(upload_id)
    assert found is not None
    return found.state
