"""The test vectors as values, and frames built from them by construct alone, without the codec. PROTOCOL.md §21."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

from protocol import frames, layouts
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

DIRECTORY = Path(__file__).resolve().parent.parent / "vectors"

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"

ENUMERATED: dict[str, type[IntEnum]] = {
    "action": Action,
    "code": ErrorCode,
    "credential": CredentialKind,
    "disposition": Disposition,
    "durability": Durability,
    "last_end": ErrorCode,
    "previous": UploadState,
    "state": UploadState,
}
_BYTES = frozenset({"magic", "nonce", "proof", "sha256", "tag"})
_TLV_SIZES = {"crc32c": 4, "last_end": 2}


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a vector file; `members` holds the members that only this file has."""

    name: str
    members: Mapping[str, Json]

    def text(self, key: str) -> str:
        """A member that is a string."""
        value = self.members[key]
        assert isinstance(value, str), f"{self.name}: {key}"
        return value

    def number(self, key: str) -> int:
        """A member that is a number, or one of 64 bits written as a string."""
        value = self.members[key]
        assert isinstance(value, int | str), f"{self.name}: {key}"
        return int(value)

    def octets(self, key: str) -> bytes:
        """A member that is bytes in hex."""
        return bytes.fromhex(self.text(key))

    def record(self, key: str) -> dict[str, Json]:
        """A member that is an object."""
        value = self.members[key]
        assert isinstance(value, dict), f"{self.name}: {key}"
        return value


def load(file_name: str) -> list[Case]:
    """The cases of one file."""
    content = json.loads((DIRECTORY / file_name).read_text(encoding="utf-8"))
    return [Case(case["name"], case) for case in content["cases"]]


def _wide(kind: FrameType) -> frozenset[str]:
    """The 64-bit fields. The vectors write them as strings, since many JSON parsers keep 53 bits of a number."""
    declared = frames.CHUNK_HEADERS[kind] if kind in frames.CHUNK_HEADERS else layouts.CONTROL_LAYOUTS[kind].fixed
    return frozenset(each.name for each in layouts.fixed_fields(declared) if each.format == "Q")


def _named(field: str, value: int) -> Json:
    known = {int(member): member.name for member in ENUMERATED[field]}
    return {"name": known.get(value), "value": value}


def to_json(kind: FrameType, frame: frames.ControlFrame | frames.ChunkHeader) -> dict[str, Json]:
    """The fields of a decoded frame as the vectors write them, without absent optional fields."""
    wide = _wide(kind)
    written: dict[str, Json] = {}
    for field in fields(frame):
        value = getattr(frame, field.name)
        if value is None:
            continue
        if field.name in ENUMERATED:
            written[field.name] = _named(field.name, int(value))
        elif field.name == "features":
            written["features"] = {"names": [bit.name for bit in Feature if bit & value], "value": value}
        elif field.name == "ranges":
            written["ranges"] = [[str(each.start), str(each.end - 1)] for each in value]
        elif isinstance(value, bytes):
            written[field.name] = value.hex()
        elif isinstance(value, str) and not value.isprintable():
            written[field.name] = {"hex": value.encode("utf-8", "surrogateescape").hex()}
        else:
            written[field.name] = str(value) if field.name in wide else value
    return written


def _fixed_value(field: str, value: Json) -> int | bytes:
    if isinstance(value, dict):
        value = value["value"]
    if field in _BYTES:
        assert isinstance(value, str)
        return bytes.fromhex(value)
    assert isinstance(value, int | str)
    return int(value)


def _optional_value(field: str, value: Json) -> bytes:
    if isinstance(value, list):
        pairs = [each for each in value if isinstance(each, list)]
        return b"".join(
            bytes(frames.RANGE.build({"start_byte": int(str(first)), "end_byte": int(str(last))}))
            for first, last in pairs
        )
    if isinstance(value, dict) and "hex" in value:
        return bytes.fromhex(str(value["hex"]))
    if field in _TLV_SIZES:
        number = _fixed_value(field, value)
        assert isinstance(number, int)
        return number.to_bytes(_TLV_SIZES[field], "big")
    assert isinstance(value, str)
    return bytes.fromhex(value) if field in _BYTES else value.encode()


def build(kind: FrameType, stream: int, written: Mapping[str, Json], data: bytes = b"") -> bytes:
    """The frame's bytes, built by construct, with optional fields in the given order."""
    chunk = frames.CHUNK_HEADERS.get(kind)
    fixed = chunk if chunk is not None else layouts.CONTROL_LAYOUTS[kind].fixed
    names = [each.name for each in layouts.fixed_fields(fixed)]
    body = bytes(fixed.build({name: _fixed_value(name, written[name]) for name in names}))
    for field, value in written.items():
        if field not in names:
            raw = _optional_value(field, value)
            body += bytes(frames.TLV_HEADER.build({"type": TlvType[field.upper()], "length": len(raw)})) + raw
    body += data
    return bytes(frames.PREFIX.build({"type": kind, "flags": 0, "stream": stream, "length": len(body)})) + body
