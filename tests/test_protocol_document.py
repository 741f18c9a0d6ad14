"""PROTOCOL.md says what the declarations say: layouts, examples, values, errors, states, defaults."""

import re
from enum import IntEnum

import pytest

from daemon.settings import Settings
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
from protocol.state import CLIENT_ACCEPTS, SERVER_ACCEPTS, SERVER_HOLDS, STREAM_ACCEPTS, ConnectionState, StreamState
from tests.support.protocol_document import DOCUMENT, ROOT, Row, section, table_of, tables
from tests.support.vectors import Json, load, to_json

TYPES = {"B": "u8", "H": "u16", "I": "u32", "L": "u32", "Q": "u64"}
TLVS_OF_TEXT = TlvType.TOKEN, TlvType.TENANT, TlvType.DEVICE, TlvType.NAME, TlvType.CONTENT_TYPE, TlvType.EXTERNAL_ID
QUOTED = {tlv.name.lower() for tlv in TLVS_OF_TEXT} | {"original_name", "agent", "agent_version", "text"}


def catalogue(kind: FrameType) -> str:
    """The layout of one frame."""
    return section(rf"19\.\d+ {kind.name} \(0x{kind:02x}\)")


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
    """Every example: the frame it stands under, its bytes, and the fields listed below it."""
    found: list[tuple[FrameType, bytes, dict[str, str]]] = []
    for kind in FrameType:
        for raw, below in re.findall(r"```hex\n([^`]*)```\n\n(.*?)\.\n\n", section(rf"22\.\d+ {kind.name}"), re.DOTALL):
            listed = " ".join(below.split())
            fields = listed[listed.index("stream ") :].split("; ")
            found.append((kind, bytes.fromhex(raw), dict(_parted(each) for each in fields)))
    return found


def _parted(field: str) -> tuple[str, str]:
    name, _, value = field.partition(" ")
    return name, value


EXAMPLES = examples()


@pytest.mark.parametrize("kind", FrameType, ids=[kind.name for kind in FrameType])
def test_the_layout_of_a_frame_is_the_declaration(kind: FrameType) -> None:
    control = layouts.CONTROL_LAYOUTS.get(kind)
    declared = frames.CHUNK_HEADERS[kind] if control is None else control.fixed
    rows = declared_rows(declared, codec.PREFIX_BYTES)
    assert laid_out(catalogue(kind)) == ([rows] if rows else [])
    if control is not None:
        [listed] = re.findall(r"^Optional fields: (.*?)\.", catalogue(kind), re.MULTILINE | re.DOTALL)
        written = [tlv.name + (" (required)" if tlv in control.required else "") for tlv in control.fields]
        assert " ".join(listed.split()) == (", ".join(written) or "none")


def test_prefix_tlv_and_range_are_the_declarations() -> None:
    assert laid_out(section("5.1 The prefix")) == [declared_rows(frames.PREFIX, 0)]
    assert laid_out(section("5.2 Optional fields")) == [
        declared_rows(each, 0) for each in (frames.TLV_HEADER, frames.RANGE)
    ]


def test_every_frame_has_an_example() -> None:
    assert {kind for kind, _, _ in EXAMPLES} == set(FrameType)
    assert DOCUMENT.count("```hex") == len(EXAMPLES)


@pytest.mark.parametrize(("kind", "raw", "fields"), EXAMPLES, ids=[f"{e[0].name}-{i}" for i, e in enumerate(EXAMPLES)])
def test_an_example_decodes_to_the_fields_listed(kind: FrameType, raw: bytes, fields: dict[str, str]) -> None:
    code, flags, stream, length = codec.PREFIX.unpack_from(raw)
    assert (code, flags, length) == (kind, 0, len(raw) - codec.PREFIX_BYTES)
    if kind in frames.CHUNK_HEADERS:
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


def test_the_list_of_frames_leads_to_their_layouts() -> None:
    for name, code, _, where in table_of("Frame", "Type", "Sender", "Body"):
        assert f"### {where.removeprefix('§')} {name} ({code})\n" in DOCUMENT


def test_defaults_are_those_of_the_settings() -> None:
    settings = Settings()
    for setting, default, _ in table_of("Setting", "Default"):
        part, _, name = setting.strip("`").partition(".")
        assert getattr(getattr(settings, part), name) == float(default), setting


def test_sections_are_numbered_and_references_lead_somewhere() -> None:
    numbers = re.findall(r"^##+ (\d+(?:\.\d+)?) ", DOCUMENT, re.MULTILINE)
    assert [number for number in numbers if "." not in number] == [str(number) for number in range(1, 24)]
    assert len(set(numbers)) == len(numbers)
    assert set(re.findall(r"§(\d+(?:\.\d+)?)", DOCUMENT)) <= set(numbers)
    for source in (ROOT / "protocol").glob("*.py"):
        for line in source.read_text(encoding="utf-8").splitlines():
            if "PROTOCOL.md" in line:
                assert set(re.findall(r"§(\d+(?:\.\d+)?)", line)) <= set(numbers), source.name


def test_contents_lead_to_the_sections() -> None:
    headings = re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)
    anchors = [re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert re.findall(r"^- \[(.*?)\]\(#(.*?)\)$", DOCUMENT, re.MULTILINE) == list(zip(headings, anchors, strict=True))


def test_requirements_are_numbered_in_order() -> None:
    for chapter in range(1, 24):
        text = DOCUMENT[DOCUMENT.index(f"\n## {chapter} ") :].split("\n## ")[1]
        labels = re.findall(r"\*\*R(\d+)\.(\d+)\*\*", text)
        assert labels == [(str(chapter), str(number)) for number in range(1, len(labels) + 1)]
    defined = set(re.findall(r"\*\*R(\d+\.\d+)\*\*", DOCUMENT))
    assert set(re.findall(r"\bR(\d+\.\d+)\b", DOCUMENT)) == defined


def test_every_requirement_has_a_number() -> None:
    rules = DOCUMENT[DOCUMENT.index("\n## 1 ") :]
    for block in re.split(r"\n\n|\n(?=- |\d+\. )", rules):
        if re.search(r"\b(MUST|SHOULD|MAY)\b", block):
            assert re.search(r"\*\*R\d+\.\d+\*\*", block), block
    assert not re.search(r"\b(SHALL|REQUIRED|RECOMMENDED|OPTIONAL)\b", rules)
