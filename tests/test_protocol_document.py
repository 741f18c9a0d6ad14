"""PROTOCOL.md says what the declarations say: layouts, examples, enumerations, errors, states, and its page of C."""

import re
import shutil
import subprocess
import threading
from enum import IntEnum
from pathlib import Path

import pytest

from protocol import codec, constants, frames, layouts
from protocol.checksum import crc32c, sum8
from protocol.constants import (
    Action,
    CredentialKind,
    Disposition,
    Durability,
    Feature,
    FrameType,
    TlvType,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.ranges import Span
from protocol.state import CLIENT_ACCEPTS, SERVER_ACCEPTS, SERVER_HOLDS, STREAM_ACCEPTS, ConnectionState, StreamState
from tests.support.vectors import Json, load, to_json

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")

Row = tuple[str, ...]

TYPES = {"B": "u8", "H": "u16", "I": "u32", "L": "u32", "Q": "u64"}
TLVS_OF_TEXT = TlvType.TOKEN, TlvType.TENANT, TlvType.DEVICE, TlvType.NAME, TlvType.CONTENT_TYPE, TlvType.EXTERNAL_ID
QUOTED = {tlv.name.lower() for tlv in TLVS_OF_TEXT} | {"original_name", "agent", "agent_version", "text"}


def tables(text: str) -> list[list[Row]]:
    """Every table: its heading row, then its rows."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [
        [
            tuple(cell.strip() for cell in line.strip("|").split(" | "))
            for line in table.splitlines()
            if "---" not in line
        ]
        for table in found
    ]


def table_of(*heading: str) -> list[Row]:
    """The rows of the one table of the document whose heading begins so."""
    [table] = [table for table in tables(DOCUMENT) if table[0][: len(heading)] == heading]
    return table[1:]


def section(kind: FrameType) -> str:
    """The text about one frame."""
    [text] = re.findall(rf"^### 5\.\d+ {kind.name} \(0x{kind:02x}\)\n(.*?)(?=^##)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(text)


def declared_rows(declared: layouts.Declaration, offset: int) -> list[Row]:
    rows: list[Row] = []
    for field in layouts.fixed_fields(declared):
        rows.append(
            (str(offset), str(field.size_bytes), field.name, TYPES.get(field.format, f"bytes {field.size_bytes}"))
        )
        offset += field.size_bytes
    return rows


def laid_out(text: str) -> list[list[Row]]:
    return [
        [row[:4] for row in table[1:]]
        for table in tables(text)
        if table[0] == ("Offset", "Size", "Field", "Type", "Meaning")
    ]


def shown(field: str, value: Json) -> str:
    """A field of a vector as the document writes it."""
    match value:
        case {"names": list(names), "value": int(number)}:
            return f"{number} ({', '.join(map(str, names))})" if names else str(number)
        case {"name": str(name), "value": int(number)}:
            return f"0x{number:04x} ({name})" if field == "code" else f"{number} ({name})"
        case list(pairs):
            return ", ".join(f"{first}-{last}" for first, last in (pair for pair in pairs if isinstance(pair, list)))
        case int(number):
            return f"0x{number:08x}" if field == "crc32c" else str(number)
    return f'"{value}"' if field in QUOTED else str(value)


def examples() -> list[tuple[FrameType, bytes, dict[str, str]]]:
    """Every example: the section it stands in, its bytes, and the fields listed below it."""
    found: list[tuple[FrameType, bytes, dict[str, str]]] = []
    for kind in FrameType:
        parts = re.findall(r"```hex\n([^`]*)```\n\n((?:\|.*\|\n)+)", section(kind))
        for raw, fields in parts:
            [table] = tables(fields)
            found.append((kind, bytes.fromhex(raw), {row[0]: row[1] for row in table[1:]}))
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("kind", FrameType, ids=[kind.name for kind in FrameType])
def test_the_layout_of_a_frame_is_the_declaration(kind: FrameType) -> None:
    control = layouts.CONTROL_LAYOUTS.get(kind)
    declared = layouts.CHUNK_HEADERS[kind] if control is None else control.fixed
    rows = declared_rows(declared, codec.PREFIX_BYTES)
    assert laid_out(section(kind)) == ([rows] if rows else [])
    if control is not None:
        [listed] = re.findall(r"^Optional fields: (.*?)\.", section(kind), re.MULTILINE | re.DOTALL)
        written = [tlv.name + (" (required)" if tlv in control.required else "") for tlv in control.fields]
        assert " ".join(listed.split()) == (", ".join(written) or "none")


def test_prefix_tlv_and_range_are_the_declarations() -> None:
    before_frames = DOCUMENT[: DOCUMENT.index("### 5.3 ")]
    expected = [declared_rows(each, 0) for each in (layouts.PREFIX, layouts.TLV_HEADER, layouts.RANGE)]
    assert laid_out(before_frames) == expected


def test_every_frame_has_an_example() -> None:
    assert {kind for kind, _, _ in EXAMPLES} == set(FrameType)
    assert DOCUMENT.count("```hex") == len(EXAMPLES)


@pytest.mark.parametrize(("kind", "raw", "fields"), EXAMPLES, ids=[f"{e[0].name}-{i}" for i, e in enumerate(EXAMPLES)])
def test_an_example_decodes_to_the_fields_listed(kind: FrameType, raw: bytes, fields: dict[str, str]) -> None:
    code, flags, stream, length = codec.PREFIX.unpack_from(raw)
    assert (code, flags, length) == (kind, 0, len(raw) - codec.PREFIX_BYTES)
    if kind in layouts.CHUNK_HEADERS:
        layout = codec.CHUNK_FRAMES[kind]
        *_, start, end, checksum = layout.unpack_from(raw)
        data = raw[layout.size :]
        expected = {"start_byte": str(start), "end_byte": str(end), "data": data.hex()}
        if kind is FrameType.CHUNK_CRC32C:
            assert checksum == crc32c(raw[:24] + data)
            expected["checksum"] = f"0x{checksum:08x}"
        else:
            assert checksum == sum8(data)
            expected["checksum"] = f"0x{checksum:02x}"
        assert len(data) == end - start + 1
    else:
        frame = codec.decode(kind, raw[codec.PREFIX_BYTES :])
        expected = {field: shown(field, value) for field, value in to_json(kind, frame).items()}
    assert fields == expected | {"stream": str(stream)}


def test_every_example_is_a_vector() -> None:
    vectors = {case.text("hex") for case in load("frames.json") + load("chunks.json")}
    assert {raw.hex() for _, raw, _ in EXAMPLES} <= vectors


def test_the_registry_of_errors() -> None:
    written = [(f"0x{code:04x}", code.name, code.scope.value, code.action.name, code.summary) for code in ErrorCode]
    assert table_of("Code", "Name", "Scope", "Action", "Meaning") == written


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [
        (("Action", "Value"), Action),
        (("State", "Value"), UploadState),
        (("Disposition", "Value"), Disposition),
        (("Durability", "Value"), Durability),
        (("Credential", "Value"), CredentialKind),
        (("Feature", "Bit"), Feature),
        (("Frame", "Type"), FrameType),
        (("Field", "Type"), TlvType),
    ],
)
def test_enumerations(heading: Row, kinds: type[IntEnum]) -> None:
    assert [(row[0], int(row[1], 0)) for row in table_of(*heading)] == [(kind.name, int(kind)) for kind in kinds]


def test_fixed_limits() -> None:
    for name, value, _ in table_of("Limit", "Value", "Holds for"):
        assert getattr(constants, name) == int(value), name


def states(cell: str) -> set[ConnectionState]:
    return set() if cell == "-" else {ConnectionState[name] for name in cell.split(", ")}


def accepting(table: dict[ConnectionState, frozenset[FrameType]], kind: FrameType) -> set[ConnectionState]:
    return {state for state, kinds in table.items() if kind in kinds}


def test_frames_are_taken_in_the_states_listed() -> None:
    rows = table_of("Frame", "Sender", "Takes", "Holds", "Stream", "Stream states")
    assert {row[0] for row in rows} == {kind.name for kind in FrameType}
    senders = {row[0]: row[2] for row in table_of("Frame", "Type", "Sender")}
    for name, sender, takes, holds, _, stream_states in rows:
        kind = FrameType[name]
        assert senders[name] == sender
        if sender != "server":
            assert accepting(SERVER_ACCEPTS, kind) == states(takes), name
            assert accepting(SERVER_HOLDS, kind) == states(holds), name
            listed = stream_states.split(", ") if stream_states.isupper() else []
            assert {state for state, kinds in STREAM_ACCEPTS.items() if kind in kinds} == {
                StreamState[each] for each in listed
            }, name
        else:
            assert accepting(CLIENT_ACCEPTS, kind) == states(takes), name
        if sender == "either":
            assert accepting(CLIENT_ACCEPTS, kind) <= states(takes), name


def test_every_state_is_explained() -> None:
    assert [row[0] for row in table_of("State", "At the server")] == [state.name for state in ConnectionState]
    assert [row[0] for row in table_of("State", "Meaning", "Leaves by")][:-1] == [state.name for state in StreamState]


def test_sections_are_numbered_and_references_lead_somewhere() -> None:
    numbers = re.findall(r"^##+ (\d+(?:\.\d+)?) ", DOCUMENT, re.MULTILINE)
    assert [number for number in numbers if "." not in number] == [str(number) for number in range(1, 23)]
    assert len(set(numbers)) == len(numbers)
    assert set(re.findall(r"§(\d+(?:\.\d+)?)", DOCUMENT)) <= set(numbers)
    for source in (ROOT / "protocol").glob("*.py"):
        for line in source.read_text(encoding="utf-8").splitlines():
            if "PROTOCOL.md" in line:
                assert set(re.findall(r"§(\d+(?:\.\d+)?)", line)) <= set(numbers), source.name


def test_contents_lead_to_the_sections() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#(.*?)\)", DOCUMENT)) == anchors


HARNESS = """
#include <stdio.h>
#include <unistd.h>

static const char file[] = "FILE";

static int all(int fd, void *at, size_t n, int out) {
    for (size_t done = 0; done < n;) {
        ssize_t moved = out ? write(fd, (char *)at + done, n - done) : read(fd, (char *)at + done, n - done);
        if (moved <= 0) return -1;
        done += (size_t)moved;
    }
    return 0;
}

int link_read(void *to, size_t n) { return all(0, to, n, 0); }
int link_write(const void *from, size_t n) { return all(1, (void *)(uintptr_t)from, n, 1); }
int file_read(uint64_t at, void *to, size_t n) { memcpy(to, file + at, n); return 0; }
int main(void) { return upload("token", "name", sizeof file - 1); }
"""
FILE = bytes(65 + index % 26 for index in range(3000))


@pytest.fixture(scope="module")
def minimal_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: the minimal device of PROTOCOL.md cannot be compiled")
    [page] = re.findall(r"```c\n(.*?)```", DOCUMENT, re.DOTALL)
    directory = tmp_path_factory.mktemp("minimal")
    source, program = directory / "device.c", directory / "device"
    source.write_text(page + HARNESS.replace("FILE", FILE.decode()), encoding="utf-8")
    strict = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    subprocess.run([compiler, *strict, "-O1", "-o", program, source], check=True, timeout=60)
    return program


class Conversation:
    """A server of a few lines at the other end of the device's standard input and output."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.deadline = threading.Timer(60, self.process.kill)  # a device that stalls ends the reads with an error
        self.deadline.start()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *raised: object) -> None:
        self.deadline.cancel()
        self.deadline.join()
        self.process.kill()
        self.process.wait(timeout=30)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def read(self, kind: FrameType) -> bytes:
        """The next frame of the device, which must be of this type; its body."""
        assert self.process.stdout is not None
        prefix = self.process.stdout.read(codec.PREFIX_BYTES)
        code, flags, _, length = codec.PREFIX.unpack(prefix)
        assert (FrameType(code), flags) == (kind, 0)
        return self.process.stdout.read(length)

    def send(self, frame: frames.ControlFrame, stream: int = 0) -> None:
        assert self.process.stdin is not None
        raw = codec.encode(frame, stream, 64)
        assert len(raw) <= 64
        self.process.stdin.write(raw)
        self.process.stdin.flush()

    def greet(self, state: UploadState, next_expected_byte: int) -> None:
        """The handshake and OPEN."""
        hello = codec.decode(FrameType.HELLO, self.read(FrameType.HELLO))
        assert hello == frames.Hello(CredentialKind.TOKEN, 0, 64, token="token")
        self.send(frames.Welcome(1, Durability.SYNC, 4, 1, 60, 0, 400, 800, 60, 0, 1))
        opened = codec.decode(FrameType.OPEN, self.read(FrameType.OPEN))
        assert opened == frames.Open(Disposition.RESUME_OR_CREATE, len(FILE), "name")
        self.send(frames.Opened(1, state, UploadState.NONE, next_expected_byte, 60), 1)

    def chunk(self) -> tuple[Span, bytes]:
        body = self.read(FrameType.CHUNK)
        start, end, checksum = codec.CHUNK_HEADERS[FrameType.CHUNK].unpack_from(body)
        data = body[17:]
        assert (len(data), sum8(data)) == (end - start + 1, checksum)
        return Span(start, end + 1), data

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def result(self) -> int:
        return self.process.wait(timeout=30)


def test_the_minimal_device_sends_a_file(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 100)
        assert [device.chunk(), device.chunk()] == [(Span(100, 500), FILE[100:500]), (Span(500, 900), FILE[500:900])]
        device.send(frames.Ping(9))
        assert device.read(FrameType.PONG) == (9).to_bytes(4, "big")
        device.send(frames.Nack(ErrorCode.CHUNK_CORRUPT, 500, 899, 100), 1)
        assert device.chunk() == (Span(500, 900), FILE[500:900])
        stored = bytearray(FILE[:900])
        device.send(frames.Ack(len(stored)), 1)
        while len(stored) < len(FILE):
            span, data = device.chunk()
            assert span.start == len(stored)
            stored += data
            device.send(frames.Ack(len(stored)), 1)
        assert stored == FILE
        assert device.read(FrameType.FINISH) == len(FILE).to_bytes(8, "big")
        device.send(frames.Nack(ErrorCode.INCOMPLETE, 0, 9, len(FILE)), 1)
        assert device.chunk() == (Span(0, 10), FILE[:10])
        assert device.read(FrameType.FINISH) == len(FILE).to_bytes(8, "big")
        device.send(frames.Verifying(1000), 1)
        device.send(frames.Finished(1, len(FILE), crc32c(FILE)), 1)
        assert device.result() == 0


def test_the_minimal_device_learns_that_a_file_is_complete(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.COMPLETE, len(FILE))
        assert device.result() == 0


def test_the_minimal_device_goes_on_beyond_what_it_sent(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 0)
        assert [device.chunk()[0], device.chunk()[0]] == [Span(0, 400), Span(400, 800)]
        device.send(frames.Ack(2900), 1)
        assert device.chunk() == (Span(2900, 3000), FILE[2900:])


@pytest.mark.parametrize("code", [ErrorCode.FENCED, ErrorCode.DISK_FULL, ErrorCode.GONE], ids=lambda code: code.name)
def test_the_minimal_device_returns_the_action_of_an_error(minimal_device: Path, code: ErrorCode) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 0)
        device.send(frames.Error(code, code.action, 0), 1)
        assert device.result() == code.action


def test_the_minimal_device_returns_the_action_of_a_refusal(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.read(FrameType.HELLO)
        code = ErrorCode.UNAUTHENTICATED
        device.send(frames.Refused(code, code.action, 1, 1, 0))
        assert device.result() == Action.REAUTHENTICATE


def test_the_minimal_device_reopens_when_the_link_is_gone(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 0)
        device.chunk()
        device.hang_up()
        assert device.result() == Action.REOPEN
