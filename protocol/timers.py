"""How long a device may be silent or slow, counted in the caller's time. PROTOCOL.md §12."""

from dataclasses import dataclass
from enum import Enum, auto

from protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class TimerSettings:
    """All in seconds; `rate_min_bytes_per_s` is the least at which a frame under way must grow, 0 for any."""

    handshake_timeout_s: float
    keepalive_s: float
    idle_timeout_s: float
    rate_min_bytes_per_s: float
    rate_window_s: float


class Probe(Enum):
    """What a silent connection needs."""

    PING = auto()


class Timers:
    """The timers of one connection. Every received byte counts as a sign of life."""

    __slots__ = ("_frame_bytes", "_frame_since", "_handshake_since", "_heard", "_probed", "_settings")

    def __init__(self, settings: TimerSettings, now: float) -> None:
        self._settings = settings
        self._handshake_since: float | None = now
        self._heard = now
        self._probed = now
        self._frame_since: float | None = None
        self._frame_bytes = 0

    def received(self, count: int, now: float) -> None:
        """Bytes arrived."""
        self._heard = self._probed = now
        self._frame_bytes += count

    def welcomed(self) -> None:
        """The handshake is done."""
        self._handshake_since = None

    def frame(self, under_way: bool, now: float) -> None:
        """Whether part of a frame is waiting for its rest; call when that may have changed."""
        if not under_way:
            self._frame_since = None
        elif self._frame_since is None:
            self._frame_since, self._frame_bytes = now, 0

    def paused(self, now: float) -> None:
        """Reading was stopped, or resumes: the silence until now was not the device's."""
        self._heard = self._probed = now
        self._frame_since = None

    def check(self, now: float) -> tuple[ErrorCode, str] | Probe | None:
        """What the time asks for. Call about once a second, not while reading is stopped."""
        settings = self._settings
        if self._handshake_since is not None:
            if now - self._handshake_since > settings.handshake_timeout_s:
                return ErrorCode.HANDSHAKE_TIMEOUT, f"no handshake within {settings.handshake_timeout_s:g} s"
            return None
        if now - self._heard > settings.idle_timeout_s:
            return ErrorCode.IDLE_TIMEOUT, f"nothing received for {settings.idle_timeout_s:g} s"
        if self._frame_since is not None and (elapsed := now - self._frame_since) >= settings.rate_window_s:
            if self._frame_bytes < settings.rate_min_bytes_per_s * elapsed:
                return ErrorCode.TOO_SLOW, f"{self._frame_bytes} bytes of a frame in {elapsed:.1f} s"
            self._frame_since, self._frame_bytes = now, 0
        if now - self._probed > settings.keepalive_s:
            self._probed = now
            return Probe.PING
        return None
