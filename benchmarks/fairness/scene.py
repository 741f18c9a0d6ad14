"""One scene: what is played, and beneath which bounds the modest devices must stay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fairness.loads import Load
from benchmarks.fairness.modest import Fleet, Latency, Measured

MIB = 1 << 20

RATIO_MAX = 10
"""Of the modest devices' p99 to what it is without the others."""

ONE_DEVICE_P99_MS_MAX = 250

MANY_P99_MS_MAX = 1000
"""With hundreds of hostile connections, each of which may have a turn."""

WHOLE_FACTOR = 2
"""A whole file may take this many times as long: a connection, a name, a digest and several trips to the catalog."""

RESIDENT_OVER_MIB_MAX = 64
"""Above what the daemon had at the start and its receive pool."""

GROWTH_MIB_MAX = 8
"""What the allocator may still add late in a long scene."""

SHARE_MIN = 0.95
"""Of the tries to connect, and of the modest devices' connections at the end."""

DRAIN_TIMEOUT_S = 5.0

STOP_MARGIN_S = 1.0
"""For the last commit cycle and the end of the process, after the drain's time is over."""

POOL_MIB = 128
"""The default of limits.receive_pool_bytes."""


@dataclass(frozen=True, slots=True)
class Scene:
    """`load` plays beside `fleet`, on a daemon with `settings` and those that `prepare` makes in a directory.

    `is_many` says that there are hundreds of hostile connections. `files_max` limits the daemon's descriptors. With
    `log_stalls` nobody reads its log.
    """

    name: str
    about: str
    load: Load
    fleet: Fleet = field(default_factory=Fleet)
    settings: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], Mapping[str, str]] = lambda _: {}
    is_many: bool = False
    tls: bool = False
    files_max: int | None = None
    log_stalls: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scene. Memory is in MiB, `growth_mib` late in a long scene, when it should grow no more.

    `tries` are of other legitimate clients than the modest devices.
    """

    scene: Scene
    alone: Measured
    beside: Measured
    start_mib: float
    peak_mib: float
    end_mib: float
    growth_mib: float
    stop_s: float
    status: int
    tracebacks: int
    tries: int
    succeeded: int
    notes: tuple[str, ...]

    @property
    def p99_ms(self) -> float:
        """The worst p99 of an ACK."""
        return max(self.beside.small.p99_ms, self.beside.large.p99_ms)

    @property
    def over_mib(self) -> float:
        """How far the peak of resident memory was above the start and the receive pool."""
        return max(0.0, self.peak_mib - self.start_mib - POOL_MIB)

    @property
    def refused(self) -> int:
        """Legitimate tries that failed, and connections of modest devices that were lost or refused."""
        failed = self.beside.tries - self.beside.welcomed + self.tries - self.succeeded
        return failed + self.beside.cut + self.beside.refused

    @property
    def share(self) -> float:
        """The smallest share: of tries that succeeded, and of modest devices that are connected and never were cut."""
        tries, succeeded = self.beside.tries + self.tries, self.beside.welcomed + self.succeeded
        devices = self.beside.devices
        uncut = max(0, devices - self.beside.cut)
        return min(succeeded / max(1, tries), self.beside.connected / devices, uncut / devices)

    def lasting_faults(self) -> list[str]:
        """What must hold however busy the machine is."""
        faults = []
        if self.over_mib > RESIDENT_OVER_MIB_MAX:
            faults.append(f"memory is {self.over_mib:.0f} MiB above start and pool, not {RESIDENT_OVER_MIB_MAX}")
        if self.growth_mib > GROWTH_MIB_MAX:
            faults.append(f"memory still grows, by {self.growth_mib:.0f} MiB")
        if self.status != 0:
            faults.append(f"the daemon's exit status is {self.status}")
        if self.tracebacks:
            faults.append(f"{self.tracebacks} tracebacks in the daemon's log")
        return faults

    def faults(self) -> list[str]:
        """Every bound that was broken."""
        small, large = self._slow("ACK", "small"), self._slow("ACK of 32 KiB", "large")
        faults = [fault for fault in (small, large) if fault is not None] + self.lasting_faults()
        whole_ms_max = WHOLE_FACTOR * self._absolute_ms_max
        if self.beside.whole.p99_ms > whole_ms_max:
            faults.append(f"p99 of FINISHED is {self.beside.whole.p99_ms:.0f} ms, not {whole_ms_max}")
        if self.share < SHARE_MIN:
            faults.append(f"{self.share:.0%} of legitimate clients are served, not {SHARE_MIN:.0%}")
        if self.stop_s > DRAIN_TIMEOUT_S + STOP_MARGIN_S:
            faults.append(f"stopping took {self.stop_s:.1f} s, not {DRAIN_TIMEOUT_S:g}")
        return faults

    @property
    def _absolute_ms_max(self) -> int:
        return MANY_P99_MS_MAX if self.scene.is_many else ONE_DEVICE_P99_MS_MAX

    def _slow(self, what: str, group: str) -> str | None:
        alone, beside = _latency(self.alone, group), _latency(self.beside, group)
        bound_ms = float(self._absolute_ms_max)
        if not self.scene.is_many:
            bound_ms = min(bound_ms, RATIO_MAX * alone.p99_ms)
        if beside.p99_ms <= bound_ms:
            return None
        return f"p99 of {what} is {beside.p99_ms:.0f} ms, not {bound_ms:.0f} (alone {alone.p99_ms:.1f})"


def _latency(measured: Measured, group: str) -> Latency:
    return measured.small if group == "small" else measured.large
