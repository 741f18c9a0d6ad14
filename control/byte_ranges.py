"""Which bytes a Range header asks for (RFC 9110, section 14), bounded so that no header costs more than a file."""

import re
from dataclasses import dataclass

RANGES_MAX = 64
"""Ranges in one header. Download managers ask for a handful; hundreds are an attack (RFC 9110, section 17.15)."""

GAP_BYTES = 160
"""Ranges closer than this are sent as one: a part's delimiter and header lines cost about as much."""

OFFSET_DIGITS_MAX = 19
"""OFFSET_MAX has 19 digits; a longer number is simply beyond every file."""

_RANGE_SPEC = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)


class NotSatisfiableError(Exception):
    """No range of the header lies within the content, or there are more than RANGES_MAX: answer 416."""


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """Bytes [start, end) of the content: `end` is exclusive, and larger than `start`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    def content_range(self, size: int) -> str:
        """The value of Content-Range (RFC 9110, section 14.4), whose last position is inclusive."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


def select(header: str, size: int) -> tuple[ByteRange, ...]:
    """The parts to send of content of `size` bytes, in the order asked for; empty: ignore the header, send all.

    A header of another unit or of wrong syntax is ignored. Parts never overlap: ranges that overlap, touch or
    lie less than GAP_BYTES apart are one part. Raises NotSatisfiableError.
    """
    unit, _, specs = header.partition("=")
    if unit.strip().lower() != "bytes":
        return ()
    found = [_RANGE_SPEC.fullmatch(spec) for text in specs.split(",") if (spec := text.strip(" \t"))]
    asked = [match.groups() for match in found if match is not None]
    if not asked or len(asked) < len(found) or any(_is_invalid(first, last) for first, last in asked):
        return ()
    if len(asked) > RANGES_MAX:
        raise NotSatisfiableError(f"{len(asked)} ranges in one request, at most {RANGES_MAX} are served")
    if not size and any(not first and _number(last) for first, last in asked):
        # A suffix of empty content is satisfiable, but no Content-Range can describe it.
        return ()
    inside = [span for first, last in asked if (span := _resolve(first, last, size)) is not None]
    if not inside:
        raise NotSatisfiableError(f"no range asked for lies within the {size} bytes")
    return _coalesce(inside)


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= OFFSET_DIGITS_MAX else 10**OFFSET_DIGITS_MAX


def _is_invalid(first: str, last: str) -> bool:
    return not (first or last) or bool(first and last and _number(last) < _number(first))


def _resolve(first: str, last: str, size: int) -> ByteRange | None:
    if not first:
        start, end = max(0, size - _number(last)), size
    else:
        start, end = _number(first), min(_number(last) + 1, size) if last else size
    return ByteRange(start, end) if start < end else None


def _coalesce(spans: list[ByteRange]) -> tuple[ByteRange, ...]:
    if len(spans) == 1:
        return (spans[0],)
    merged: list[tuple[int, ByteRange]] = []
    for span, rank in sorted((span, rank) for rank, span in enumerate(spans)):
        if merged and span.start - merged[-1][1].end < GAP_BYTES:
            earlier_rank, earlier = merged[-1]
            merged[-1] = (min(rank, earlier_rank), ByteRange(earlier.start, max(earlier.end, span.end)))
        else:
            merged.append((rank, span))
    return tuple(span for _, span in sorted(merged))
