"""Invalid names, metadata and sizes, and names that already belong to other content."""

from pathlib import Path

import pytest

from protocol import frames
from protocol.constants import OFFSET_MAX, SIZE_UNKNOWN, Action, FrameType, TlvType, UploadState
from protocol.errors import ErrorCode
from tests.e2e.bad_input.conftest import CHUNK_BYTES_MAX, QUOTA_BYTES, Nothing
from tests.support.raw_device import Wire, chunk, field, open_request, raw
from tests.support.refused_input import DATA, begun, failed, lives_on
from tests.support.scene import Bystander, Scene, undisturbed

pytestmark = pytest.mark.asyncio(loop_scope="module")


def paths_around(directory: Path) -> set[Path]:
    """All paths next to the directory, one level above it, and in the root directory."""
    return {path for parent in (*directory.parents[:2], Path("/")) for path in parent.iterdir()}


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            b"",
            b"a\0b",
            b"a\nb",
            b"\x7f",
            b"\xc2\x85",
            b"\xff\xfe",
            b"caf\xe9",
            b"\xed\xa0\x80",
            b"n" * 256,
            b"../../x",
            b"..",
        ],
        ids=["empty", "nul", "newline", "del", "c1", "ff", "latin-1", "surrogate", "256 bytes", "outside", "parent"],
    )
    async def test_an_invalid_name_is_refused(self, wire: Wire, nothing_stored: Nothing, name: bytes) -> None:
        async with nothing_stored:
            wire.send(raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, name), 1))
            await failed(wire, ErrorCode.NAME_INVALID, 1)
            wire.send(raw(FrameType.QUERY, field(TlvType.NAME, name), 9))
            assert (await wire.hear(frames.Status, 9)).state is UploadState.NONE

    @pytest.mark.parametrize("name", ["/uplinkd-test", ".", "a/./b", "a..b", "n" * 255])
    async def test_a_name_is_never_a_path(self, live: Scene, wire: Wire, name: str) -> None:
        around = paths_around(live.data_dir)
        opened = await wire.open(1, open_request(name, len(DATA)))
        wire.send(chunk(1, 0, DATA))
        wire.say(frames.Finish(len(DATA)), 1)
        while not isinstance((reply := await wire.reply()).frame, frames.Finished):
            assert isinstance(reply.frame, frames.Ack)
        path = f"/v1/files/{opened.upload_id:016x}"
        status = (await live.http.get(path, token=live.operator)).json()
        assert (status["name"], status["state"]) == (name, "complete")
        assert (await live.http.get(f"{path}/content", token=live.operator)).body == DATA
        assert paths_around(live.data_dir) == around

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (TlvType.CONTENT_TYPE, b"text/plain\r\nX-Evil: 1"),
            (TlvType.EXTERNAL_ID, b"\xff"),
            (TlvType.ORIGINAL_NAME, b"o" * 1025),
            (TlvType.TAG, b"t" * 33),
        ],
    )
    async def test_invalid_metadata_is_refused(
        self, wire: Wire, nothing_stored: Nothing, kind: TlvType, value: bytes
    ) -> None:
        async with nothing_stored:
            wire.send(raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, b"x") + field(kind, value), 1))
            await failed(wire, ErrorCode.METADATA_INVALID, 1)

    @pytest.mark.parametrize("size", [OFFSET_MAX + 1, SIZE_UNKNOWN - 1])
    async def test_a_size_beyond_the_largest_offset(self, wire: Wire, nothing_stored: Nothing, size: int) -> None:
        async with nothing_stored:
            wire.say(open_request("vast.bin", size), 1)
            await failed(wire, ErrorCode.SIZE_INVALID, 1)

    async def test_a_size_beyond_the_quota(self, wire: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            wire.say(open_request("large.bin", QUOTA_BYTES + 1), 1)
            answer = await wire.hear(frames.Error, 1)
            assert (answer.code, answer.action) == (ErrorCode.QUOTA_EXCEEDED, Action.WAIT)
            assert answer.wait_ms > 0
            await lives_on(wire)

    async def test_a_size_beyond_the_disk(self, wire: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            wire.say(open_request("larger.bin", OFFSET_MAX), 1)
            answer = await wire.hear(frames.Error, 1)
            assert (answer.code, answer.action) == (ErrorCode.FILE_TOO_LARGE, Action.GIVE_UP)
            await lives_on(wire)

    async def test_bytes_beyond_the_quota_without_a_declared_size(self, live: Scene, bystander: Bystander) -> None:
        async with await live.admitted("glutton") as wire:
            await wire.open(1, open_request("endless.bin"))
            sent = 0
            while sent + CHUNK_BYTES_MAX <= QUOTA_BYTES:
                await wire.upload(1, sent, bytes(CHUNK_BYTES_MAX))
                sent += CHUNK_BYTES_MAX
            async with undisturbed(live, bystander):
                wire.send(chunk(1, sent, bytes(CHUNK_BYTES_MAX)))
                answer = await failed(wire, ErrorCode.QUOTA_EXCEEDED, 1)
                assert answer.next_expected_byte == sent


class TestIdentity:
    @pytest.mark.parametrize(
        ("size", "tag"), [(99, b"one"), (101, b"one"), (100, b"two"), (100, b"")], ids=["less", "more", "tag", "no tag"]
    )
    async def test_reusing_a_name_for_other_content_is_refused(
        self, wire: Wire, nothing_stored: Nothing, name: str, size: int, tag: bytes
    ) -> None:
        await wire.open(1, open_request(name, 100, b"one"))
        await wire.upload(1, 0, DATA)
        async with nothing_stored:
            wire.say(open_request(name, size, tag), 2)
            await failed(wire, ErrorCode.CONTENT_CHANGED, 2)
        await wire.upload(1, 10, DATA)

    async def test_a_second_open_of_a_name_fences_the_first_and_keeps_its_bytes(
        self, live: Scene, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun(wire, name)
        async with await live.admitted("victim") as second:
            async with nothing_stored:
                opened = await second.open(1, open_request(name, 100))
                assert opened.next_expected_byte == len(DATA)
                await failed(wire, ErrorCode.FENCED, 1)
                # Chunks that the fenced device still sends are dropped silently.
                wire.send(chunk(1, 10, b"y" * 10))
                await lives_on(wire)
            await second.upload(1, 10, b"z" * 90)
            second.say(frames.Finish(100), 1)
            await second.hear(frames.Finished, 1)
        path = f"/v1/files/{opened.upload_id:016x}/content"
        assert (await live.http.get(path, token=live.operator)).body == DATA + b"z" * 90
