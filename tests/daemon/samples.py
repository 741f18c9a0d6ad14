"""The file that a device sends, and what may become of it."""

import errno
import hashlib
from dataclasses import replace

from daemon.catalog.records import State
from protocol.checksum import crc32c
from tests.daemon.catalog.samples import REPLACE, REQUEST
from tests.daemon.fakes_uploads import Bench, finish, until

CONTENT = bytes(index * 7 % 251 for index in range(100))
CRC = crc32c(CONTENT)
SHA256 = hashlib.sha256(CONTENT).digest()
UNSIZED = replace(REQUEST, size=None)
FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


async def complete(bench: Bench, content: bytes = CONTENT) -> int:
    """An upload that is complete."""
    upload, stream = await bench.open(replace(REQUEST, size=len(content), disposition=REPLACE))
    bench.send(upload, 0, content)
    bench.uploads.finish(upload, finish(len(content)))
    await until(lambda: stream.completed is not None)
    return upload.id


async def state(bench: Bench, upload_id: int = 1) -> State:
    found = await bench.catalog.get(upload_id)
    assert found is not None
    return found.state
