"""How many uploads a device may begin in an hour. PROTOCOL.md §11.3."""

from collections import OrderedDict
from dataclasses import dataclass

from daemon.adapters.clock import Clock

HOUR_S = 3600

Device = tuple[str, str]
"""Tenant and device."""


@dataclass(slots=True)
class _Begun:
    """Uploads that still count, as of `since_s`."""

    count: float
    since_s: float


class UploadRate:
    """Counts the uploads that each device begins. They are forgotten evenly, `per_hour` of them in an hour.

    So a device may begin an hour's uploads at once, say after a long outage, and then one for each that is forgotten.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: OrderedDict[Device, _Begun] = OrderedDict()

    def allows(self, device: Device, per_hour: int) -> bool:
        """Whether the device may begin another upload now. `per_hour` 0 sets no limit."""
        begun = self._begun.get(device)
        return not per_hour or begun is None or self._left(begun, per_hour) + 1 <= per_hour

    def begin(self, device: Device, per_hour: int) -> None:
        """The device has begun an upload."""
        if not per_hour:
            return
        begun = self._begun.get(device)
        count = 0.0 if begun is None else self._left(begun, per_hour)
        self._begun[device] = _Begun(count + 1, self._clock.monotonic_s())
        self._begun.move_to_end(device)
        self._forget(per_hour)

    def _left(self, begun: _Begun, per_hour: int) -> float:
        passed_s = self._clock.monotonic_s() - begun.since_s
        return max(begun.count - passed_s * per_hour / HOUR_S, 0.0)

    def _forget(self, per_hour: int) -> None:
        """Drop devices whose uploads no longer count, the longest quiet first."""
        while self._left(next(iter(self._begun.values())), per_hour) == 0:
            self._begun.popitem(last=False)

    def __len__(self) -> int:
        """Devices that are remembered."""
        return len(self._begun)
