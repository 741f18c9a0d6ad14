"""The life of the daemon's process: SIGHUP reloads, SIGTERM drains, and systemd hears of each step."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Protocol

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.process.pulse import Pulse
from daemon.process.systemd import Notifier, NotifyFailed, watchdog_interval_s


class Reloadable(Protocol):
    """What SIGHUP calls."""

    def __call__(self) -> str:
        """Apply the settings that may change while running; a line that says which did. Raises nothing."""
        ...


class Lifecycle:
    """Waits for signals and speaks to systemd. Made on the running event loop."""

    def __init__(
        self,
        environment: Mapping[str, str],
        pid: int,
        clock: Clock,
        pulse: Pulse,
        stuck_s: Callable[[], float],
        log: BoundLogger,
    ) -> None:
        self._watchdog_interval_s = watchdog_interval_s(environment, pid)
        self._clock = clock
        self._pulse = pulse
        self._stuck_s = stuck_s
        self._log = log
        self._notifier = Notifier(environment)
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    def catch_signals(self) -> None:
        """Let SIGTERM and SIGINT drain from now on, and SIGHUP reload."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

    async def serve(self, status: str, reload: Reloadable) -> None:
        """Say READY, and return when a signal asks to stop."""
        self._notify(lambda: self._notifier.ready(status))
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(self._reloads(reload, status)), group.create_task(self._watchdog())]
            await self._stop.wait()
            for each in others:
                each.cancel()
        self._notify(lambda: self._notifier.stopping("draining"))

    async def _reloads(self, reload: Reloadable, status: str) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._notify(lambda: self._notifier.reloading(self._clock.monotonic_s()))
            self._log.info("settings reloaded", outcome=reload())
            self._notify(lambda: self._notifier.ready(status))

    async def _watchdog(self) -> None:
        """Notify the watchdog only while the event loop and the committer are alive."""
        interval_s = self._watchdog_interval_s
        if interval_s is None:
            return
        beats = -1
        while True:
            stuck_s = self._stuck_s()
            if stuck_s:
                self._log.error("commit cycle is stuck, watchdog not notified", stuck_s=round(stuck_s))
            elif self._pulse.beats > beats:
                beats = self._pulse.beats
                self._notify(self._notifier.watchdog)
            await asyncio.sleep(interval_s)

    def _notify(self, say: Callable[[], None]) -> None:
        try:
            say()
        except NotifyFailed as error:
            self._log.warning("systemd was not notified", error=str(error))
