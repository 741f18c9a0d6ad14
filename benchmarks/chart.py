"""The ratios as a picture: one row per case, on a logarithmic scale where 1 means that both are equally fast."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.figures import Interval, rounded
from benchmarks.record import Record
from benchmarks.results import Case

ROW = 30
LEFT, WIDTH, RIGHT = 290, 560, 40
TOP, BOTTOM = 56, 34

LOWEST, HIGHEST = 0.05, 1000.0
"""Marks beyond the scale are drawn at its end; the number next to each mark is exact."""

LIMIT_COLOUR, PEER_COLOUR = "#2563eb", "#d97706"


def draw(records: Sequence[Record]) -> str:
    """An SVG document."""
    rows = [(f"{record.result.name} {case.name}", case) for record in records for case in _compared(record)]
    height = TOP + ROW * len(rows) + BOTTOM
    total = LEFT + WIDTH + RIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" width="{total}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{total}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-weight="600">How many times as good as the other (1: level)</text>',
        *_key("the machine's limit", LIMIT_COLOUR, LEFT),
        *_key("the best peer", PEER_COLOUR, LEFT + 170),
        *_axis(height),
    ]
    for number, (name, case) in enumerate(rows):
        lines += _row(name, case, TOP + ROW * number + ROW / 2)
    return "\n".join([*lines, "</svg>", ""])


def _compared(record: Record) -> Iterator[Case]:
    yield from (case for case in record.result.cases if case.limit is not None or case.best_peer is not None)


def _key(text: str, colour: str, x: float) -> Iterator[str]:
    yield f'<circle cx="{x + 5}" cy="36" r="5" fill="{colour}"/>'
    yield f'<text x="{x + 15}" y="40">{escape(text)}</text>'


def _axis(height: float) -> Iterator[str]:
    for factor in (0.1, 1, 10, 100, 1000):
        x, colour = _x(factor), "#111827" if factor == 1 else "#e5e7eb"
        yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - BOTTOM}" stroke="{colour}"/>'
        yield f'<text x="{x:.1f}" y="{height - BOTTOM + 18}" text-anchor="middle" fill="#6b7280">{factor:g}</text>'


def _row(name: str, case: Case, y: float) -> Iterator[str]:
    yield f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>'
    if case.limit is not None:
        yield from _mark(case.limit.ratio, LIMIT_COLOUR, y - 6)
    if case.best_peer is not None:
        yield from _mark(case.best_peer, PEER_COLOUR, y + 6)


def _mark(ratio: Interval, colour: str, y: float) -> Iterator[str]:
    low, middle, high = _x(ratio.low), _x(ratio.median), _x(ratio.high)
    yield f'<line x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2"/>'
    yield f'<circle cx="{middle:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    yield f'<text x="{high + 6:.1f}" y="{y + 4:.1f}" font-size="10" fill="{colour}">{rounded(ratio.median, 2)}</text>'


def _x(factor: float) -> float:
    inside = min(max(factor, LOWEST), HIGHEST)
    return LEFT + WIDTH * math.log(inside / LOWEST) / math.log(HIGHEST / LOWEST)
