"""What the declarations in `frames` say about the bytes of each frame. PROTOCOL.md §5."""

from dataclasses import MISSING, dataclass, fields
from enum import IntEnum
from typing import Annotated, TypeAlias, get_args, get_origin, get_type_hints

from construct import Bytes, Struct

from protocol.constants import FrameType, TlvType
from protocol.frames import ControlFrame

Declaration: TypeAlias = Struct


@dataclass(frozen=True, slots=True)
class ControlLayout:
    """A control frame: its class, its fixed part, the optional fields it knows, and those that are required.

    `enumerations` are the fields of the fixed part that take the members of an enumeration alone.
    """

    frame: type[ControlFrame]
    fixed: Declaration
    enumerations: tuple[tuple[str, type[IntEnum]], ...]
    fields: tuple[TlvType, ...]
    required: tuple[TlvType, ...]


@dataclass(frozen=True, slots=True)
class FixedField:
    """One field of a fixed part. `format` is that of `struct`, without byte order."""

    name: str
    format: str
    size_bytes: int


def fixed_fields(layout: Declaration) -> tuple[FixedField, ...]:
    """The fields of a declaration in order."""
    found = []
    for renamed in layout.subcons:
        declared = renamed.subcon
        code = f"{declared.length}s" if isinstance(declared, Bytes) else declared.fmtstr.lstrip(">")
        found.append(FixedField(renamed.name, code, declared.sizeof()))
    return tuple(found)


def control_layout(frame: type[ControlFrame]) -> ControlLayout:
    """The layout of a class of `frames`. Raises KeyError for a field that is neither laid out nor named as a TLV."""
    hints = get_type_hints(frame, include_extras=True)
    fixed: list[Declaration] = []
    enumerations: list[tuple[str, type[IntEnum]]] = []
    optional: list[TlvType] = []
    required: list[TlvType] = []
    for each in fields(frame):
        hint = hints[each.name]
        if get_origin(hint) is Annotated:
            value, layout = get_args(hint)
            fixed.append(each.name / layout)
            if isinstance(value, type) and issubclass(value, IntEnum):
                enumerations.append((each.name, value))
        else:
            tlv = TlvType[each.name.upper()]
            optional.append(tlv)
            if each.default is MISSING:
                required.append(tlv)
    return ControlLayout(frame, Struct(*fixed), tuple(enumerations), tuple(optional), tuple(required))


CONTROL_LAYOUTS = {FrameType[frame.__name__.upper()]: control_layout(frame) for frame in get_args(ControlFrame)}
"""Every frame that is not a chunk. A body is the fixed part, then optional fields (TLVs) in any order, each once."""
