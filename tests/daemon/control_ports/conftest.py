"""The control plane's ports on a real core."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control.ports import (
    Ports,
)
from daemon.control_ports import control_ports
from daemon.sections import StorageSettings
from daemon.settings import Settings
from daemon.telemetry.exposition import Exposition, Gauges
from tests.support.running_core import Running, core_on


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    settings = Settings(data_dir=tmp_path, storage=StorageSettings(disk_free_min_bytes=0))
    async with core_on(settings) as running:
        yield running


@pytest.fixture
def ports(running: Running) -> Ports:
    gauges = Gauges({}, {}, 0, 0, None, None, 0)
    return control_ports(running.core, Exposition(running.core.metrics, lambda: gauges, "1.2.3"))
