"""Frames on their way out: no larger than the peer takes, answers withheld while authority is in doubt."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol import codec, frames
from protocol.constants import FRAME_BYTES_MIN
from protocol.ranges import Span

_ACK_FIXED_BYTES = len(codec.encode(frames.Ack(0, ())))
_RANGE_BYTES = len(codec.encode(frames.Ack(0, (Span(0, 1),)))) - _ACK_FIXED_BYTES

_ANSWERS = (frames.Opened, frames.Verifying, frames.Finished, frames.Status, frames.Aborted)
"""What, beside ACK, confirms something. Refusals go out at once, or a device could make them pile up here."""


@dataclass(slots=True)
class _Withheld:
    """What waits for authority; no connection has it otherwise."""

    answers: list[tuple[int, bytes]] = field(default_factory=list)
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
        """Queue a frame for a stream (0 for the connection), without the optional fields for which there is no room."""
        raw = codec.encode(frame, number, self.frame_bytes_max)
        if self._withheld is not None and isinstance(frame, _ANSWERS):
            self._withheld.answers.append((number, raw))
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
        """The stream has ended: what was withheld for it is void."""
        if self._withheld is not None:
            self._withheld.acks.pop(number, None)
            self._withheld.answers = [each for each in self._withheld.answers if each[0] != number]

    def withhold(self) -> None:
        """Authority is in doubt: what confirms something waits for `release`."""
        self._withheld = self._withheld or _Withheld()

    def release(self) -> None:
        """Authority is back: what was withheld goes out, of each stream the latest ACK."""
        withheld, self._withheld = self._withheld, None
        if withheld is not None:
            self._frames += [raw for _, raw in withheld.answers]
            for number, (next_expected_byte, beyond) in withheld.acks.items():
                self.acknowledge(number, next_expected_byte, beyond)

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
