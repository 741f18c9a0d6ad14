"""A complete file that is being replaced: who gets which content, and what the name means when it comes to nothing."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from protocol import frames
from protocol.checksum import crc32c
from protocol.constants import Disposition, UploadState
from protocol.errors import ErrorCode
from tests.support.deadlines import DEADLINE_S
from tests.support.raw_device import Wire, open_request
from tests.support.scene import Scene, scene

NAME, OLD, NEW = "config", b"the old one", b"new!"
STATUS_PATH = f"/v1/devices/pump/files/{NAME}"
REPLACE = frames.Open(Disposition.REPLACE, len(NEW), NAME)


async def complete(wire: Wire, stream: int, content: bytes) -> frames.Finished:
    """FINISH, and FINISHED after any ACKs."""
    wire.say(frames.Finish(len(content), sha256=hashlib.sha256(content).digest()), stream)
    while not isinstance(reply := (await wire.reply()).frame, frames.Finished):
        assert isinstance(reply, frames.Ack), reply
    return reply


async def old_file(wire: Wire) -> int:
    """Store the old file on stream 1; its id."""
    opened = await wire.open(1, open_request(NAME, len(OLD)))
    await wire.upload(1, 0, OLD)
    await complete(wire, 1, OLD)
    return opened.upload_id


async def queried(wire: Wire) -> frames.Status:
    wire.say(frames.Query(NAME))
    return await wire.hear(frames.Status)


async def read(site: Scene) -> tuple[object, bytes]:
    """The state and the content that HTTP gives under the name."""
    status = await site.http.get(STATUS_PATH, token=site.operator)
    content = await site.http.get(f"{STATUS_PATH}/content", token=site.operator)
    return status.json()["state"], content.body


async def test_the_old_file_is_readable_until_the_new_one_is_complete(tmp_path: Path) -> None:
    async with scene(tmp_path) as site, await site.admitted("pump") as wire:
        old_id = await old_file(wire)
        opened = await wire.open(2, REPLACE)
        assert opened.previous is UploadState.COMPLETE
        assert opened.upload_id != old_id
        assert await read(site) == ("complete", OLD)
        await wire.upload(2, 0, NEW[:2])
        assert await read(site) == ("complete", OLD)
        status = await queried(wire)
        assert (status.upload_id, status.state) == (opened.upload_id, UploadState.RECEIVING)
        wire.say(open_request(NAME, len(NEW)), 3)
        assert (await wire.hear(frames.Error, 2)).code == ErrorCode.FENCED
        resumed = await wire.hear(frames.Opened, 3)
        assert (resumed.upload_id, resumed.next_expected_byte) == (opened.upload_id, 2)
        await wire.upload(3, 2, NEW[2:])
        await complete(wire, 3, NEW)
        assert await read(site) == ("complete", NEW)
        gone = await site.http.get(f"/v1/files/{old_id:016x}/content", token=site.operator)
        assert gone.status == 410


async def delete(site: Scene, upload_id: int) -> int:
    return (await site.http.request("DELETE", f"/v1/files/{upload_id:016x}", token=site.operator)).status


async def by_abort(site: Scene, wire: Wire, _: int) -> None:
    wire.say(frames.Abort(), 2)
    await wire.hear(frames.Aborted, 2)


async def by_mismatch(site: Scene, wire: Wire, _: int) -> None:
    wire.say(frames.Finish(len(NEW), crc32c=crc32c(NEW) ^ 1), 2)
    assert (await wire.hear(frames.Error, 2)).code == ErrorCode.DIGEST_MISMATCH


async def by_deletion(site: Scene, wire: Wire, upload_id: int) -> None:
    assert await delete(site, upload_id) == 204
    assert (await wire.hear(frames.Error, 2)).code == ErrorCode.GONE


@pytest.mark.parametrize("end", [by_abort, by_mismatch, by_deletion])
async def test_a_replacement_that_fails_gives_the_name_back(
    tmp_path: Path, end: Callable[[Scene, Wire, int], Awaitable[None]]
) -> None:
    async with scene(tmp_path) as site, await site.admitted("pump") as wire:
        old_id = await old_file(wire)
        replacing = await wire.open(2, REPLACE)
        await wire.upload(2, 0, NEW)
        await end(site, wire, replacing.upload_id)
        await stands_for_the_old_file(site, wire, old_id)


async def stands_for_the_old_file(site: Scene, wire: Wire, old_id: int) -> None:
    digest = hashlib.sha256(OLD).digest()
    status = await queried(wire)
    assert (status.upload_id, status.state, status.sha256) == (old_id, UploadState.COMPLETE, digest)
    opened = await wire.open(3, open_request(NAME, len(OLD)))
    assert (opened.upload_id, opened.state, opened.sha256) == (old_id, UploadState.COMPLETE, digest)
    assert await read(site) == ("complete", OLD)
    # The next replacement replaces the same file.
    assert (await wire.open(4, REPLACE)).previous is UploadState.COMPLETE
    await wire.upload(4, 0, NEW)
    await complete(wire, 4, NEW)
    assert await read(site) == ("complete", NEW)


async def state_of(site: Scene, upload_id: int) -> object:
    return (await site.http.get(f"/v1/files/{upload_id:016x}", token=site.operator)).json()["state"]


async def test_a_replacement_that_expires_gives_the_name_back(tmp_path: Path) -> None:
    async with scene(tmp_path, {"CLEANUP__STALE_S": "0.001"}) as site:
        async with await site.admitted("pump") as wire:
            old_id = await old_file(wire)
            replacing = await wire.open(2, REPLACE)
        async with await site.admitted("pump") as wire:
            async with asyncio.timeout(DEADLINE_S):
                # Until the daemon has noticed that the stream is gone.
                while await state_of(site, replacing.upload_id) != "expired":
                    await site.http.post("/v1/cleanup", {"dry_run": False}, token=site.operator)
            await stands_for_the_old_file(site, wire, old_id)


async def test_a_file_that_was_deleted_after_its_replacement_failed_is_gone(tmp_path: Path) -> None:
    async with scene(tmp_path) as site, await site.admitted("pump") as wire:
        old_id = await old_file(wire)
        await wire.open(2, REPLACE)
        await by_abort(site, wire, 0)
        assert await delete(site, old_id) == 204
        wire.say(open_request(NAME, len(OLD)), 3)
        assert (await wire.hear(frames.Error, 3)).code == ErrorCode.GONE


@pytest.mark.parametrize("end", [by_abort, by_mismatch])
async def test_a_file_that_was_deleted_before_its_replacement_failed_is_gone(
    tmp_path: Path, end: Callable[[Scene, Wire, int], Awaitable[None]]
) -> None:
    async with scene(tmp_path) as site, await site.admitted("pump") as wire:
        old_id = await old_file(wire)
        replacing = await wire.open(2, REPLACE)
        await wire.upload(2, 0, NEW)
        assert await delete(site, old_id) == 204
        await end(site, wire, replacing.upload_id)
        wire.say(open_request(NAME, len(OLD)), 3)
        assert (await wire.hear(frames.Error, 3)).code == ErrorCode.GONE
        status = await queried(wire)
        assert (status.upload_id, status.state) == (old_id, UploadState.DELETED)
        assert (await site.http.get(STATUS_PATH, token=site.operator)).json()["state"] == "deleted"
        assert (await site.http.get(f"{STATUS_PATH}/content", token=site.operator)).status == 410
        # The device may still replace it.
        await wire.open(4, REPLACE)
        await wire.upload(4, 0, NEW)
        await complete(wire, 4, NEW)


async def test_another_digest_at_a_later_open_is_other_content(tmp_path: Path) -> None:
    def request(digest: bytes | None) -> frames.Open:
        return frames.Open(Disposition.RESUME_OR_CREATE, len(NEW), NAME, sha256=digest)

    async with scene(tmp_path) as site, await site.admitted("pump") as wire:
        first = await wire.open(1, request(None))
        wire.say(request(hashlib.sha256(NEW).digest()), 2)
        assert (await wire.hear(frames.Error, 1)).code == ErrorCode.FENCED
        assert (await wire.hear(frames.Opened, 2)).upload_id == first.upload_id
        wire.say(request(bytes(32)), 3)
        refused = await wire.hear(frames.Error, 3)
        assert refused.code == ErrorCode.CONTENT_CHANGED
        # The stream that has the upload goes on.
        await wire.upload(2, 0, NEW)
        await complete(wire, 2, NEW)
