"""Frames on their way out: no larger than the peer takes, withheld while the device's authority is over."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol import codec, frames
from protocol.constants import FRAME_BYTES_MIN, STREAM_CONNECTION, FrameType
from protocol.ranges import Span

_ACK_FIXED_BYTES = len(codec.encode(frames.Ack(0, ())))
_RANGE_BYTES = len(codec.encode(frames.Ack(0, (Span(0, 1),)))) - _ACK_FIXED_BYTES

_NEVER_WITHHELD = (frames.Pong, frames.Refreshed, frames.Goaway)
"""What goes out without authority, beside an ERROR that ends the connection. PROTOCOL.md §13."""


def withheld_max(streams_max: int) -> int:
    """Frames withheld, ACKs apart, from which on no more input is read: a flood of bad chunks costs no memory.

    A device that does nothing wrong stays below: it awaits 64 requests (REQUESTS_MAX) and the end of each stream.
    """
    return 64 + 2 * streams_max


@dataclass(slots=True)
class _Withheld:
    """What waits for authority; most connections never have one."""

    frames_max: int
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    acks: dict[int, tuple[int, Sequence[Span]]] = field(default_factory=dict)


class Outbox:
    """Encodes what a server sends. PROTOCOL.md §7 and §13."""

    __slots__ = ("_closed", "_frames", "_withheld", "ack_ranges_max", "frame_bytes_max")

    def __init__(self) -> None:
        self._closed = False
        self._frames: list[bytes] = []
        self._withheld: _Withheld | None = None
        self.frame_bytes_max = FRAME_BYTES_MIN
        self.ack_ranges_max = 0

    def send(self, number: int, frame: frames.ControlFrame) -> bytes:
        """Queue a frame for a stream (0 for the connection), leaving out optional fields that find no room.

        Returns the frame as sent.
        """
        raw = codec.encode(frame, number, self.frame_bytes_max)
        if self._withheld is not None and not _ends_or_keeps_alive(number, frame):
            self._withheld.frames.append((number, raw))
        elif not self._closed:
            self._frames.append(raw)
        return raw

    def acknowledge(self, number: int, next_expected_byte: int, beyond: Sequence[Span]) -> None:
        """Queue an ACK with as many of the ranges as the device asked for and can take."""
        if self._closed:
            return
        if self._withheld is not None:
            self._withheld.acks[number] = (next_expected_byte, beyond)
        elif beyond and self.ack_ranges_max:
            room = (self.frame_bytes_max - _ACK_FIXED_BYTES) // _RANGE_BYTES
            self.send(number, frames.Ack(next_expected_byte, tuple(beyond[: min(room, self.ack_ranges_max)])))
        else:
            self._frames.append(codec.encode_ack(number, next_expected_byte))

    def forget(self, number: int) -> None:
        """The stream has ended: drop what is withheld for it, but not the answer to a QUERY of the same number."""
        if self._withheld is not None:
            self._withheld.acks.pop(number, None)
            self._withheld.frames = [
                (each, raw) for each, raw in self._withheld.frames if each != number or raw[0] == FrameType.STATUS
            ]

    def withhold(self, frames_max: int) -> None:
        """The authority is over: send nothing that needs it until `release`. With `frames_max` frames it is full."""
        self._withheld = self._withheld or _Withheld(frames_max)

    def release(self) -> None:
        """The authority is back: send what was withheld, and the latest ACK of each stream."""
        withheld, self._withheld = self._withheld, None
        if withheld is not None:
            self._frames += [raw for _, raw in withheld.frames]
            for number, (next_expected_byte, beyond) in withheld.acks.items():
                self.acknowledge(number, next_expected_byte, beyond)

    @property
    def is_full(self) -> bool:
        """As many frames are withheld as may be."""
        return self._withheld is not None and len(self._withheld.frames) >= self._withheld.frames_max

    def close(self) -> None:
        """The last words are queued: nothing goes out behind them."""
        self._closed = True

    @property
    def is_empty(self) -> bool:
        """Nothing waits to be taken."""
        return not self._frames

    def take(self) -> bytes:
        """Everything queued since the last call."""
        queued = self._frames
        if not queued:
            return b""
        data = queued[0] if len(queued) == 1 else b"".join(queued)
        queued.clear()
        return data


def _ends_or_keeps_alive(number: int, frame: frames.ControlFrame) -> bool:
    return isinstance(frame, _NEVER_WITHHELD) or (isinstance(frame, frames.Error) and number == STREAM_CONNECTION)
