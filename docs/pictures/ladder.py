"""Draws who says what to whom, from top to bottom, as SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

LANE, ROW = 300, 34
LEFT, TOP, BOTTOM = 110, 58, 20

INK, QUIET, GOOD, BAD = "#111827", "#6b7280", "#047857", "#b91c1c"


@dataclass(frozen=True, slots=True)
class Message:
    """Something that one lane says to another; a promise is something that the other may rely on."""

    source: int
    target: int
    text: str
    is_promise: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """What a lane does by itself."""

    lane: int
    text: str


@dataclass(frozen=True, slots=True)
class Break:
    """The link, or more, is gone here."""

    text: str


Step = Message | Note | Break


def draw(title: str, lanes: Sequence[str], steps: Sequence[Step]) -> str:
    """An SVG document."""
    width = 2 * LEFT + LANE * (len(lanes) - 1)
    height = TOP + ROW * len(steps) + BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
    ]
    for number, lane in enumerate(lanes):
        x = _x(number)
        lines.append(_text(x, 26, lane, INK, weight=600))
        lines.append(f'<line x1="{x}" y1="36" x2="{x}" y2="{height - 8}" stroke="#d1d5db" stroke-width="2"/>')
    for number, step in enumerate(steps):
        lines += _step(step, TOP + ROW * number + ROW // 2, width)
    return "\n".join([*lines, "</svg>", ""])


def _x(lane: int) -> int:
    return LEFT + LANE * lane


def _step(step: Step, y: int, width: int) -> Iterator[str]:
    match step:
        case Message():
            yield from _message(step, y)
        case Note():
            x, half = _x(step.lane), 6.6 * len(step.text) / 2 + 10
            yield f'<rect x="{x - half:.0f}" y="{y - 13}" width="{2 * half:.0f}" height="24" rx="4" fill="#f3f4f6"/>'
            yield _text(x, y + 4, step.text, QUIET)
        case Break():
            yield f'<line x1="12" y1="{y}" x2="{width - 12}" y2="{y}" stroke="{BAD}" stroke-dasharray="6 5"/>'
            half = 7 * len(step.text) / 2 + 8
            yield f'<rect x="{width / 2 - half:.0f}" y="{y - 11}" width="{2 * half:.0f}" height="22" fill="#ffffff"/>'
            yield _text(width // 2, y + 4, step.text, BAD, weight=600)


def _message(step: Message, y: int) -> Iterator[str]:
    start, end = _x(step.source), _x(step.target)
    to_right = 1 if end > start else -1
    colour = GOOD if step.is_promise else INK
    tip = end - to_right * 2
    yield f'<line x1="{start}" y1="{y + 6}" x2="{tip}" y2="{y + 6}" stroke="{colour}" stroke-width="1.5"/>'
    yield f'<path d="M{tip} {y + 6}l{-8 * to_right} -4v8z" fill="{colour}"/>'
    yield _text((start + end) // 2, y, step.text, colour, weight=600 if step.is_promise else 400)


def _text(x: int, y: int, text: str, colour: str, weight: int = 400) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle" fill="{colour}" font-weight="{weight}">{escape(text)}</text>'
