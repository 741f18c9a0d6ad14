"""How long a connection may be silent, a handshake may take or a frame may be slow. PROTOCOL.md §12."""

from dataclasses import dataclass
from enum import Enum, auto

from protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class TimerSettings:
    """All in seconds. A frame under way must grow by `rate_min_bytes_per_s`; 0 allows any rate."""

    handshake_timeout_s: float
    keepalive_s: float
    idle_timeout_s: float
    rate_min_bytes_per_s: float
    rate_window_s: float


class Probe(Enum):
    """What a silent connection needs."""

    PING = auto()


class Timers:
    """The timers of one connection; `now` arguments are monotonic seconds.

    Every received byte is a sign of life of the device. Every byte sent is one of the server, so a PING is due when
    either end was silent for `keepalive_s`.
    """

    __slots__ = ("_frame_bytes", "_frame_since", "_handshake_since", "_heard", "_probed", "_sent", "_settings")

    def __init__(self, settings: TimerSettings, now: float) -> None:
        self._settings = settings
        self._handshake_since: float | None = now
        self._heard = now
        self._probed = now
        self._sent = now
        self._frame_since: float | None = None
        self._frame_bytes = 0

    def received(self, count: int, now: float) -> None:
        """Bytes arrived."""
        self._heard = self._probed = now
        self._frame_bytes += count

    def sent(self, now: float) -> None:
        """Bytes went out."""
        self._sent = now

    def welcomed(self) -> None:
        """The handshake is done."""
        self._handshake_since = None

    def frame(self, under_way: bool, now: float) -> None:
        """Whether part of a frame waits for its rest; call when that may have changed."""
        if not under_way:
            self._frame_since = None
        elif self._frame_since is None:
            self._frame_since, self._frame_bytes = now, 0

    def paused(self, now: float) -> None:
        """Reading was stopped, or resumes: the silence until now was not the device's."""
        self._heard = self._probed = now
        self._frame_since = None

    @property
    def deadline(self) -> float:
        """When `check` has something to do, should nothing arrive or go out until then."""
        settings = self._settings
        if self._handshake_since is not None:
            return self._handshake_since + settings.handshake_timeout_s
        idle = self._heard + settings.idle_timeout_s
        probe = min(self._probed, self._sent) + settings.keepalive_s
        if self._frame_since is None:
            return min(idle, probe)
        return min(idle, probe, self._frame_since + settings.rate_window_s)

    def check(self, now: float) -> tuple[ErrorCode, str] | Probe | None:
        """What is due: an error that ends the connection, a PING, or nothing. Call at `deadline`, or more often."""
        if now < self.deadline:
            return None
        settings = self._settings
        if self._handshake_since is not None:
            return ErrorCode.HANDSHAKE_TIMEOUT, f"no handshake within {settings.handshake_timeout_s:g} s"
        if now >= self._heard + settings.idle_timeout_s:
            return ErrorCode.IDLE_TIMEOUT, f"nothing received for {settings.idle_timeout_s:g} s"
        if self._frame_since is not None and now >= self._frame_since + settings.rate_window_s:
            elapsed = now - self._frame_since
            if self._frame_bytes < settings.rate_min_bytes_per_s * elapsed:
                return ErrorCode.TOO_SLOW, f"{self._frame_bytes} bytes of a frame in {elapsed:.1f} s"
            self._frame_since, self._frame_bytes = now, 0
        if now >= min(self._probed, self._sent) + settings.keepalive_s:
            self._probed = self._sent = now
            return Probe.PING
        return None
