"""What bad input gets: a clear error with its code and action, nothing stored, nothing lost, nobody disturbed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import jwt
import pytest
import pytest_asyncio

from device.credentials import secret_from_text
from protocol import frames
from protocol.constants import (
    CONTROL_FRAME_BYTES_MAX,
    HANDSHAKE_FRAME_BYTES_MAX,
    NACKS_PER_RANGE_MAX,
    OFFSET_MAX,
    SIZE_UNKNOWN,
    VERSION,
    Action,
    CredentialKind,
    Disposition,
    FrameType,
    TlvType,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.e2e.scene import Bystander, Scene, scene, undisturbed
from tests.e2e.wire import (
    DEADLINE_S,
    NONCE,
    Wire,
    changed,
    chunk,
    field,
    lying_chunk,
    open_request,
    raw,
    secret_hello,
    token_hello,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNK_BYTES_MAX = 64 * 1024
RANGES_MAX = 4
QUOTA_BYTES = 1_000_000
HANDSHAKE_TIMEOUT_S = 3

SETTINGS = {
    "LIMITS__CHUNK_BYTES_MAX": str(CHUNK_BYTES_MAX),
    "LIMITS__HANDSHAKE_TIMEOUT_S": str(HANDSHAKE_TIMEOUT_S),
    "LIMITS__RANGES_MAX": str(RANGES_MAX),
    "LIMITS__RATE_MIN_BYTES_PER_S": "64",
    "LIMITS__RATE_WINDOW_S": "0.5",
    "STORAGE__QUOTA_BYTES_PER_DEVICE": str(QUOTA_BYTES),
    "AUTH__LEEWAY_S": "0",
}

DRIP_S = 0.2
"""Faster than a byte a second, and still far below the lowest rate allowed."""

CHUNKS = [FrameType.CHUNK, FrameType.CHUNK_COMPACT, FrameType.CHUNK_CRC32C]

DATA = b"0123456789"
"""What an upload has before something goes wrong with it."""

Nothing = AbstractAsyncContextManager[None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("bad-input") / "data", SETTINGS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bystander(live: Scene) -> AsyncIterator[Bystander]:
    async with Bystander.at(live) as going_on:
        yield going_on


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secret(live: Scene) -> bytes:
    """That of the device `prover`."""
    return secret_from_text(await live.daemon.command("device", "add", "prover", "--quiet"))


@pytest.fixture
def nothing_stored(live: Scene, bystander: Bystander) -> Nothing:
    """Entered where the bad input begins."""
    return undisturbed(live, bystander)


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(live: Scene) -> AsyncIterator[Wire]:
    """A connection on which nothing was said."""
    async with await Wire.connect(live.address) as wire:
        yield wire


@pytest_asyncio.fixture(loop_scope="module")
async def wire(live: Scene) -> AsyncIterator[Wire]:
    """A device after WELCOME."""
    async with await live.admitted("victim") as wire:
        yield wire


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return str(request.node.name)[-200:]


async def refused(wire: Wire, code: ErrorCode) -> frames.Refused:
    """The handshake's refusal, after which the server ends the connection."""
    answer = await wire.hear(frames.Refused)
    assert (answer.code, answer.action) == (code, code.action)
    await wire.ended()
    return answer


async def failed(wire: Wire, code: ErrorCode, stream: int = 0) -> frames.Error:
    """The ERROR, after which the server ends the connection if it is on stream 0."""
    answer = await wire.hear(frames.Error, stream)
    assert (answer.code, answer.action) == (code, code.action)
    assert answer.text
    assert bool(answer.wait_ms) is (code.action is Action.WAIT)
    if stream == 0:
        await wire.ended()
    return answer


async def lives_on(wire: Wire) -> None:
    """The connection takes further requests."""
    wire.say(frames.Query("anything"), 9)
    await wire.hear(frames.Status, 9)


async def begun(wire: Wire, name: str, size: int = 100) -> None:
    """An upload on stream 1 of which DATA is durable."""
    await wire.open(1, open_request(name, size))
    await wire.upload(1, 0, DATA)


def paths_around(directory: Path) -> set[Path]:
    """What lies beside the directory, above it, and at the root."""
    return {path for parent in (*directory.parents[:2], Path("/")) for path in parent.iterdir()}


class TestTheFirstBytes:
    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"SSH-2.0-x\r\n",
            b"\0",
        ],
        ids=["http", "tls", "ssh", "zero"],
    )
    async def test_another_protocol_is_told_so(self, stranger: Wire, nothing_stored: Nothing, data: bytes) -> None:
        async with nothing_stored:
            stranger.send(data)
            await refused(stranger, ErrorCode.MAGIC_WRONG)

    async def test_a_wrong_magic(self, live: Scene, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.say(changed(token_hello(live.token("victim")), magic=b"UPLX"))
            await refused(stranger, ErrorCode.MAGIC_WRONG)

    @pytest.mark.parametrize(("lowest", "highest"), [(VERSION + 1, 255), (0, VERSION - 1), (255, 0)])
    async def test_a_version_out_of_range(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, lowest: int, highest: int
    ) -> None:
        async with nothing_stored:
            stranger.say(changed(token_hello(live.token("victim")), version_min=lowest, version_max=highest))
            answer = await refused(stranger, ErrorCode.VERSION_UNSUPPORTED)
        assert (answer.version_min, answer.version_max) == (VERSION, VERSION)

    async def test_a_frame_before_hello(self, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.say(open_request("early.bin"), 1)
            await refused(stranger, ErrorCode.MAGIC_WRONG)

    async def test_a_kind_of_credential_that_there_is_not(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            stranger.say(changed(token_hello(live.token("victim")), credential=3))
            await refused(stranger, ErrorCode.CREDENTIAL_UNSUPPORTED)


class TestFrameSizes:
    async def test_an_oversized_hello_is_refused_by_its_prefix_alone(
        self, stranger: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            stranger.send(raw(FrameType.HELLO, b"", length=HANDSHAKE_FRAME_BYTES_MAX - 7))
            await refused(stranger, ErrorCode.FRAME_TOO_LARGE)

    async def test_an_oversized_control_frame_is_refused_by_its_prefix_alone(
        self, wire: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            wire.send(raw(FrameType.OPEN, b"", 1, length=CONTROL_FRAME_BYTES_MAX - 7))
            await failed(wire, ErrorCode.FRAME_TOO_LARGE)

    @pytest.mark.parametrize("length", [CHUNK_BYTES_MAX + 21, 2**32 - 1])
    async def test_an_oversized_chunk_is_refused_by_its_prefix_alone(
        self, wire: Wire, nothing_stored: Nothing, name: str, length: int
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(raw(FrameType.CHUNK, b"", 1, length=length))
            await failed(wire, ErrorCode.FRAME_TOO_LARGE)

    @pytest.mark.parametrize(
        "frame",
        [
            raw(FrameType.OPEN, b"\0\0\0", 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, b"cut", length=9), 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + b"\x10\0", 1),
            raw(FrameType.OPEN, b"\0" + bytes(8), 1),
            raw(FrameType.OPEN, b"\x07" + bytes(8) + field(TlvType.NAME, b"x"), 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + 2 * field(TlvType.NAME, b"x"), 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, b"x") + field(0x7E, b""), 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, b"x"), 0),
            raw(FrameType.PING, b"\0\0\0\0", 5),
            raw(FrameType.PING, b"\0\0\0\0", flags=1),
            raw(FrameType.REFRESH, b""),
        ],
        ids=[
            "fixed part cut",
            "field cut",
            "field header cut",
            "name missing",
            "disposition unknown",
            "field twice",
            "field unknown",
            "stream 0",
            "stream not 0",
            "flags",
            "token missing",
        ],
    )
    async def test_a_malformed_frame_ends_the_connection(
        self, wire: Wire, nothing_stored: Nothing, frame: bytes
    ) -> None:
        async with nothing_stored:
            wire.send(frame)
            await failed(wire, ErrorCode.FRAME_MALFORMED)

    @pytest.mark.parametrize(("kind", "code"), [(0x7F, ErrorCode.FRAME_UNKNOWN), (0x01, ErrorCode.FRAME_UNEXPECTED)])
    async def test_a_frame_that_has_no_place(
        self, wire: Wire, nothing_stored: Nothing, kind: int, code: ErrorCode
    ) -> None:
        async with nothing_stored:
            wire.send(raw(kind, b""))
            await failed(wire, code)

    async def test_a_hello_cut_short_by_the_end(self, live: Scene, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.send(raw(FrameType.HELLO, b"UPLK", length=100))
            stranger.end()
            await stranger.ended()

    async def test_a_chunk_cut_short_by_the_end_is_not_stored(
        self, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(chunk(1, len(DATA), b"x" * 50)[:-1])
            wire.end()
            await wire.ended()

    async def test_a_chunk_cut_short_by_a_reset_is_not_stored(
        self, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(chunk(1, len(DATA), b"x" * 50)[:-1])
            wire.hang_up()


class TestSlowness:
    async def test_a_handshake_that_drips_is_ended(self, stranger: Wire, nothing_stored: Nothing) -> None:
        hello = iter(raw(FrameType.HELLO, b"UPLK\1\1\1" + bytes(500)))
        async with nothing_stored:
            reply = await stranger.drip(lambda: bytes([next(hello)]), DRIP_S)
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.HANDSHAKE_TIMEOUT
            assert reply.frame.action is Action.REOPEN

    async def test_a_stranger_who_says_nothing_is_ended(self, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            await refused(stranger, ErrorCode.HANDSHAKE_TIMEOUT)

    async def test_a_chunk_that_drips_is_ended(self, wire: Wire, nothing_stored: Nothing, name: str) -> None:
        await begun(wire, name)
        frame = iter(chunk(1, len(DATA), b"x" * 90))
        async with nothing_stored:
            reply = await wire.drip(lambda: bytes([next(frame)]), DRIP_S)
            assert (reply.stream, type(reply.frame)) == (0, frames.Error)
            assert isinstance(reply.frame, frames.Error)
            assert (reply.frame.code, reply.frame.action) == (ErrorCode.TOO_SLOW, Action.REOPEN)
            await wire.ended()

    async def test_a_frame_that_never_ends_is_ended(self, wire: Wire, nothing_stored: Nothing, name: str) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(raw(FrameType.CHUNK, b"", 1, length=CHUNK_BYTES_MAX))
            await failed(wire, ErrorCode.TOO_SLOW)

    async def test_input_without_end_after_the_last_words_is_cut_off(self, wire: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            wire.send(raw(0x7F, b""))
            await failed(wire, ErrorCode.FRAME_UNKNOWN)
            with pytest.raises(ConnectionError):  # and not TimeoutError
                async with asyncio.timeout(DEADLINE_S):
                    await wire.flood(bytes(64 * 1024))


class TestChunks:
    @pytest.mark.parametrize("kind", CHUNKS)
    @pytest.mark.parametrize(
        ("start", "end"), [(10, 20), (10, 18), (10, 10), (19, 10), (10, 2**32 - 1), (2**32 - 1, 0)]
    )
    async def test_a_length_that_contradicts_start_and_end(
        self, wire: Wire, nothing_stored: Nothing, name: str, kind: FrameType, start: int, end: int
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(lying_chunk(1, start, end, DATA, kind))
            answer = await failed(wire, ErrorCode.CHUNK_INVALID, 1)
            assert answer.next_expected_byte == len(DATA)
            await lives_on(wire)

    @pytest.mark.parametrize("kind", CHUNKS)
    async def test_a_chunk_without_data(self, wire: Wire, nothing_stored: Nothing, name: str, kind: FrameType) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(lying_chunk(1, 11, 10, b"", kind))
            await failed(wire, ErrorCode.CHUNK_INVALID, 1)

    async def test_a_header_cut_short(self, wire: Wire, nothing_stored: Nothing, name: str) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(raw(FrameType.CHUNK, bytes(16), 1))
            await failed(wire, ErrorCode.CHUNK_INVALID, 1)

    @pytest.mark.parametrize("start", [91, 100, 2**40])
    async def test_an_end_beyond_the_total(self, wire: Wire, nothing_stored: Nothing, name: str, start: int) -> None:
        await begun(wire, name, size=100)
        async with nothing_stored:
            wire.send(chunk(1, start, DATA))
            answer = await failed(wire, ErrorCode.CHUNK_BEYOND_END, 1)
            assert answer.next_expected_byte == len(DATA)
            await lives_on(wire)

    @pytest.mark.parametrize("end", [OFFSET_MAX, OFFSET_MAX + 1, 2**64 - 1])
    async def test_an_end_beyond_all_offsets(self, wire: Wire, nothing_stored: Nothing, name: str, end: int) -> None:
        await begun(wire, name, size=SIZE_UNKNOWN)
        async with nothing_stored:
            wire.send(lying_chunk(1, end - 9, end, DATA))
            await failed(wire, ErrorCode.CHUNK_INVALID, 1)

    @pytest.mark.parametrize("kind", CHUNKS)
    async def test_a_checksum_that_does_not_fit_costs_the_chunk(
        self, wire: Wire, nothing_stored: Nothing, name: str, kind: FrameType
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(chunk(1, 10, DATA, kind)[:-1] + b"!")
            answer = await wire.hear(frames.Nack, 1)
            assert (answer.code, answer.start_byte, answer.end_byte) == (ErrorCode.CHUNK_CORRUPT, 10, 19)
            assert answer.next_expected_byte == 10
        await wire.upload(1, 10, DATA)

    async def test_the_eighth_refusal_of_a_range_ends_the_stream(
        self, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(NACKS_PER_RANGE_MAX * (chunk(1, 10, DATA)[:-1] + b"!"))
            for _ in range(NACKS_PER_RANGE_MAX - 1):
                await wire.hear(frames.Nack, 1)
            await failed(wire, ErrorCode.NACKS_EXHAUSTED, 1)
            await lives_on(wire)

    async def test_a_gap_too_many_costs_the_chunk(self, wire: Wire, nothing_stored: Nothing, name: str) -> None:
        await begun(wire, name, size=1000)
        for number in range(1, RANGES_MAX + 1):
            wire.send(chunk(1, 100 * number, DATA))
            ack = await wire.hear(frames.Ack, 1)
            assert ack.ranges is not None
            assert ack.ranges[-1] == Span(100 * number, 100 * number + 10)
        async with nothing_stored:
            wire.send(chunk(1, 900, DATA))
            answer = await wire.hear(frames.Nack, 1)
            assert (answer.code, answer.start_byte, answer.end_byte) == (ErrorCode.TOO_MANY_GAPS, 900, 909)
            assert answer.next_expected_byte == 10
        await wire.upload(1, 10, b"x" * 90)


class TestStreams:
    async def test_a_chunk_for_a_stream_that_was_not_opened(self, wire: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            wire.send(chunk(7, 0, DATA))
            await failed(wire, ErrorCode.STREAM_UNKNOWN, 7)
            await lives_on(wire)

    @pytest.mark.parametrize("number", [1, 2])
    async def test_a_stream_number_used_twice(
        self, wire: Wire, nothing_stored: Nothing, name: str, number: int
    ) -> None:
        await wire.open(2, open_request(name))
        async with nothing_stored:
            wire.say(open_request(f"{name}-again"), number)
            await failed(wire, ErrorCode.STREAM_REUSED)


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
    async def test_a_name_that_cannot_be(self, wire: Wire, nothing_stored: Nothing, name: bytes) -> None:
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
    async def test_metadata_that_cannot_be(
        self, wire: Wire, nothing_stored: Nothing, kind: TlvType, value: bytes
    ) -> None:
        async with nothing_stored:
            wire.send(raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, b"x") + field(kind, value), 1))
            await failed(wire, ErrorCode.METADATA_INVALID, 1)

    @pytest.mark.parametrize("size", [OFFSET_MAX + 1, SIZE_UNKNOWN - 1])
    async def test_a_size_beyond_all_offsets(self, wire: Wire, nothing_stored: Nothing, size: int) -> None:
        async with nothing_stored:
            wire.say(open_request("vast.bin", size), 1)
            await failed(wire, ErrorCode.SIZE_INVALID, 1)

    @pytest.mark.parametrize("size", [QUOTA_BYTES + 1, OFFSET_MAX])
    async def test_a_size_beyond_the_quota(self, wire: Wire, nothing_stored: Nothing, size: int) -> None:
        async with nothing_stored:
            wire.say(open_request("large.bin", size), 1)
            answer = await wire.hear(frames.Error, 1)
            # What no disk has room for is refused for that before quotas are looked at.
            assert answer.code == (ErrorCode.QUOTA_EXCEEDED if size < OFFSET_MAX else ErrorCode.DISK_FULL)
            assert answer.action is Action.WAIT
            assert answer.wait_ms > 0
            await lives_on(wire)

    async def test_bytes_beyond_the_quota_of_a_size_that_was_not_told(self, live: Scene, bystander: Bystander) -> None:
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
    async def test_a_name_again_with_other_content(
        self, wire: Wire, nothing_stored: Nothing, name: str, size: int, tag: bytes
    ) -> None:
        await wire.open(1, open_request(name, 100, b"one"))
        await wire.upload(1, 0, DATA)
        async with nothing_stored:
            wire.say(open_request(name, size, tag), 2)
            await failed(wire, ErrorCode.CONTENT_CHANGED, 2)
        await wire.upload(1, 10, DATA)

    async def test_a_second_open_of_a_name_fences_the_first_and_loses_nothing(
        self, live: Scene, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun(wire, name)
        async with await live.admitted("victim") as second:
            async with nothing_stored:
                opened = await second.open(1, open_request(name, 100))
                assert opened.next_expected_byte == len(DATA)
                await failed(wire, ErrorCode.FENCED, 1)
                # What the fenced one still sends is dropped without a word.
                wire.send(chunk(1, 10, b"y" * 10))
                await lives_on(wire)
            await second.upload(1, 10, b"z" * 90)
            second.say(frames.Finish(100), 1)
            await second.hear(frames.Finished, 1)
        path = f"/v1/files/{opened.upload_id:016x}/content"
        assert (await live.http.get(path, token=live.operator)).body == DATA + b"z" * 90


class TestTokens:
    @pytest.mark.parametrize(
        ("claims", "code"),
        [
            ({"exp": 1_000_000_000}, ErrorCode.TOKEN_EXPIRED),
            ({"aud": "another"}, ErrorCode.UNAUTHENTICATED),
            ({"iss": "another"}, ErrorCode.UNAUTHENTICATED),
            ({"exp": None}, ErrorCode.UNAUTHENTICATED),
            ({"aud": None}, ErrorCode.UNAUTHENTICATED),
            ({"sub": "../etc"}, ErrorCode.UNAUTHENTICATED),
            ({"nbf": 4_000_000_000}, ErrorCode.UNAUTHENTICATED),
        ],
        ids=["expired", "audience", "issuer", "endless", "no audience", "subject", "not yet"],
    )
    async def test_a_token_that_is_not_good_opens_neither_plane(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, claims: dict[str, object], code: ErrorCode
    ) -> None:
        token = live.token("victim", **claims)
        async with nothing_stored:
            stranger.say(token_hello(token))
            await refused(stranger, code)
            answer = await live.http.get("/v1/files", token=token)
            assert (answer.status, answer.name) == (401, code.name)

    @pytest.mark.parametrize("how", ["key", "none", "altered", "garbage"])
    async def test_a_forged_token_opens_neither_plane(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, how: str
    ) -> None:
        good = live.token("victim")
        claims = jwt.decode(good, options={"verify_signature": False})
        forged = {
            "key": jwt.encode(claims, "k" * 32, "HS256"),
            "none": jwt.encode(claims, "", "none"),
            "altered": ".".join([*jwt.encode(claims | {"sub": "boss"}, "k" * 32).split(".")[:2], good.split(".")[2]]),
            "garbage": "not.a.token",
        }[how]
        async with nothing_stored:
            stranger.say(token_hello(forged))
            await refused(stranger, ErrorCode.UNAUTHENTICATED)
            answer = await live.http.get("/v1/files", token=forged)
            assert (answer.status, answer.name) == (401, "UNAUTHENTICATED")

    @pytest.mark.parametrize("scope", ["read", "delete"])
    async def test_a_token_that_does_not_allow_uploads(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, scope: str
    ) -> None:
        async with nothing_stored:
            stranger.say(token_hello(live.token("victim", scope=scope)))
            await refused(stranger, ErrorCode.FORBIDDEN)

    async def test_an_operators_token_does_not_upload(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            stranger.say(token_hello(live.operator))
            await refused(stranger, ErrorCode.FORBIDDEN)

    async def test_a_revoked_device_is_cut_and_opens_neither_plane(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        token = live.token("revoked")
        async with await live.admitted("revoked") as wire:
            await begun(wire, name)
            async with nothing_stored:
                await live.daemon.command("device", "disable", "revoked")
                await failed(wire, ErrorCode.DEVICE_DISABLED)
                stranger.say(token_hello(token))
                await refused(stranger, ErrorCode.DEVICE_DISABLED)
                answer = await live.http.get("/v1/files", token=token)
                assert (answer.status, answer.name) == (401, "DEVICE_DISABLED")

    async def test_a_refresh_for_another_device_ends_the_connection(
        self, live: Scene, wire: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            wire.say(frames.Refresh(live.token("another")))
            await failed(wire, ErrorCode.UNAUTHENTICATED)


class TestProofs:
    async def test_a_right_proof_is_let_in(self, stranger: Wire, secret: bytes) -> None:
        assert isinstance((await stranger.prove("prover", secret)).frame, frames.Welcome)

    @pytest.mark.parametrize("device", ["prover", "unknown"])
    async def test_a_wrong_proof_and_an_unknown_device_are_told_the_same(
        self, stranger: Wire, secret: bytes, nothing_stored: Nothing, device: str
    ) -> None:
        async with nothing_stored:
            reply = await stranger.prove(device, bytes(32))
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.UNAUTHENTICATED
            assert reply.frame.action is Action.REAUTHENTICATE
            assert reply.frame.text == (
                "the proof does not fit: check the device's name, tenant and secret, or enrol it"
            )
            await stranger.ended()

    async def test_a_replayed_proof_is_wrong(
        self, live: Scene, stranger: Wire, secret: bytes, nothing_stored: Nothing
    ) -> None:
        async with await Wire.connect(live.address) as first:
            assert isinstance((await first.prove("prover", secret)).frame, frames.Welcome)
            proof = first.said[-1]
        async with nothing_stored:
            stranger.say(secret_hello("prover"))
            await stranger.hear(frames.Challenge)
            stranger.send(proof)
            await refused(stranger, ErrorCode.UNAUTHENTICATED)

    async def test_a_hello_altered_on_the_way_is_not_proven(
        self, live: Scene, stranger: Wire, secret: bytes, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            reply = await stranger.prove("prover", secret, changed(secret_hello("prover"), features=0))
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.UNAUTHENTICATED

    async def test_a_hello_that_lacks_what_its_credential_needs(self, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.say(frames.Hello(CredentialKind.DEVICE_SECRET, 0, 64, nonce=NONCE))
            await refused(stranger, ErrorCode.FRAME_MALFORMED)

    async def test_a_wrong_secret_gets_no_token(self, live: Scene, secret: bytes, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            for device in ("prover", "unknown"):
                answer = await live.http.post("/v1/token", {"device": device, "secret": "A" * 43})
                assert (answer.status, answer.name) == (401, "UNAUTHENTICATED")


class TestOthersFiles:
    async def test_a_device_finds_no_other_devices_file_on_either_plane(
        self, live: Scene, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        async with await live.admitted("owner") as owner:
            await begun(owner, name)
        (file_id,) = [key for key, value in (await live.stored()).items() if value[1] == name]
        thief = live.token("victim", scope="upload read delete")
        async with nothing_stored:
            wire.say(frames.Query(name), 5)
            status = await wire.hear(frames.Status, 5)
            assert (status.state, status.upload_id) == (UploadState.NONE, 0)
            wire.say(frames.Open(Disposition.RESUME_ONLY, 100, name), 6)
            await failed(wire, ErrorCode.NOT_FOUND, 6)
            for method, path in [
                ("GET", f"/v1/files/{file_id}"),
                ("GET", f"/v1/files/{file_id}/content"),
                ("DELETE", f"/v1/files/{file_id}"),
            ]:
                answer = await live.http.request(method, path, token=thief)
                assert (answer.status, answer.name) == (404, "RESOURCE_UNKNOWN")
            listed = (await live.http.get("/v1/files?limit=1000", token=thief)).json()["files"]
            assert isinstance(listed, list)
            assert {file["device"] for file in listed} <= {"victim"}

    async def test_the_same_name_of_two_devices_is_two_files(self, live: Scene, wire: Wire, name: str) -> None:
        async with await live.admitted("owner") as owner:
            first = await owner.open(1, open_request(name, 100))
            second = await wire.open(1, open_request(name, 200))
        assert first.upload_id != second.upload_id
