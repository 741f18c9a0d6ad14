"""Frames on their way out: no larger than the peer takes, answers withheld while authority is in doubt."""

from collections.abc import Sequence

from protocol import codec, frames
from protocol.constants import FRAME_BYTES_MIN
from protocol.ranges import Span

_ACK_FIXED_BYTES = len(codec.encode(frames.Ack(0, ())))
_RANGE_BYTES = len(codec.encode(frames.Ack(0, (Span(0, 1),)))) - _ACK_FIXED_BYTES

_ANSWERS = (frames.Opened, frames.Verifying, frames.Finished, frames.Status, frames.Aborted)
"""What, beside ACK, confirms something. Refusals go out at once, or a device could make them pile up here."""


class Outbox:
    """Encodes what a server sends. PROTOCOL.md §7 and §13."""

    __slots__ = ("_acks", "_answers", "_closed", "_frames", "ack_ranges_max", "frame_bytes_max", "withholds")

    def __init__(self) -> None:
        self._closed = False
        self._frames: list[bytes] = []
        self._acks: dict[int, tuple[int, Sequence[Span]]] = {}
        self._answers: list[tuple[int, bytes]] = []
        self.frame_bytes_max = FRAME_BYTES_MIN
        self.ack_ranges_max = 0
        self.withholds = False

    def send(self, number: int, frame: frames.ControlFrame) -> bytes:
        """Queue a frame for a stream (0 for the connection), without the optional fields for which there is no room."""
        raw = codec.encode(frame, number, self.frame_bytes_max)
        if self.withholds and isinstance(frame, _ANSWERS):
            self._answers.append((number, raw))
        elif not self._closed:
            self._frames.append(raw)
        return raw

    def acknowledge(self, number: int, next_expected_byte: int, beyond: Sequence[Span]) -> None:
        """Queue an ACK with as many of the ranges as the device asked for and can take."""
        if self._closed:
            return
        if self.withholds:
            self._acks[number] = (next_expected_byte, beyond)
        elif beyond and self.ack_ranges_max:
            room = (self.frame_bytes_max - _ACK_FIXED_BYTES) // _RANGE_BYTES
            self.send(number, frames.Ack(next_expected_byte, tuple(beyond[: min(room, self.ack_ranges_max)])))
        else:
            self._frames.append(codec.encode_ack(number, next_expected_byte))

    def forget(self, number: int) -> None:
        """The stream has ended: what was withheld for it is void."""
        self._acks.pop(number, None)
        self._answers = [each for each in self._answers if each[0] != number]

    def release(self) -> None:
        """Authority is back: what was withheld goes out, of each stream the latest ACK."""
        self.withholds = False
        self._frames += [raw for _, raw in self._answers]
        self._answers.clear()
        for number, (next_expected_byte, beyond) in self._acks.items():
            self.acknowledge(number, next_expected_byte, beyond)
        self._acks.clear()

    def close(self) -> None:
        """The last words are queued: nothing goes out behind them."""
        self._closed = True

    def take(self) -> bytes:
        """Everything queued since the last call."""
        queued = self._frames
        if not queued:
            return b""
        data = queued[0] if len(queued) == 1 else b"".join(queued)
        queued.clear()
        return data
