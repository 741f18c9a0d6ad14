"""When uploads expire, and that cleanup, the wire and HTTP agree on it."""

from dataclasses import replace
from pathlib import Path

import pytest

from daemon.catalog.expiry import ExpiryPolicy, expired_before_ms, expires_ms, lifetime_s, parked_before_ms
from daemon.catalog.records import HOLDING, TOMBSTONES, State
from daemon.control_ports import control_ports
from daemon.core import system_machine
from daemon.sections import CleanupSettings, StorageSettings
from daemon.settings import Settings
from daemon.tcp.policies import server_policy
from daemon.tcp.translation import expires_s, status
from daemon.telemetry.exposition import Exposition, Gauges
from protocol.constants import NEVER_S
from tests.support.catalog_samples import TENANT, upload
from tests.support.fake_machine import DAY_S, NOW_MS, FakeClock
from tests.support.running_core import Running, core_on

POLICY = ExpiryPolicy(stale_s=60, keeps_stale=False, retention_s=90, rejected_s=30)
KEEPING = replace(POLICY, keeps_stale=True, retention_s=0)
LONG_S = 50 * 365 * DAY_S


@pytest.mark.parametrize(
    ("policy", "state", "lifetime"),
    [
        (POLICY, State.RECEIVING, 60),
        (POLICY, State.PARTIAL, 60),
        (POLICY, State.COMPLETE, 90),
        (POLICY, State.REJECTED, 30),
        (KEEPING, State.RECEIVING, None),
        (KEEPING, State.PARTIAL, None),
        (KEEPING, State.COMPLETE, None),
        (KEEPING, State.REJECTED, 30),
        *[(POLICY, state, None) for state in sorted(TOMBSTONES)],
    ],
)
def test_a_state_has_a_lifetime(policy: ExpiryPolicy, state: State, lifetime: float | None) -> None:
    assert lifetime_s(policy, state) == lifetime


def test_the_time_runs_from_the_last_update() -> None:
    assert expires_ms(POLICY, upload(updated_ms=5_000)) == 65_000
    assert expires_ms(KEEPING, upload(updated_ms=5_000)) is None


def test_an_upload_has_expired_when_its_time_is_over_to_the_millisecond() -> None:
    expiring = upload(updated_ms=5_000)
    for now_ms, expired in ((64_999, False), (65_000, True)):
        before_ms = expired_before_ms(POLICY, State.RECEIVING, now_ms)
        assert before_ms is not None
        assert (expiring.updated_ms < before_ms) is expired
    assert expired_before_ms(KEEPING, State.RECEIVING, 1 << 60) is None


def test_a_stale_upload_expires_or_is_kept_as_partial() -> None:
    assert parked_before_ms(POLICY, 65_000) is None
    assert parked_before_ms(KEEPING, 65_000) == 5_001


class TestOneAnswer:
    """What is promised over the wire and HTTP is what cleanup does, under the settings of a real core."""

    DELETING = CleanupSettings(stale_s=600, rejected_s=60)
    RETAINING = CleanupSettings(stale_s=600, rejected_s=60, retention_s=3_600)
    KEEPING = CleanupSettings(stale_s=600, rejected_s=60, stale_action="keep")

    @pytest.mark.parametrize(
        ("cleanup", "state", "lifetime"),
        [
            (DELETING, State.RECEIVING, 600),
            (DELETING, State.PARTIAL, 600),
            (DELETING, State.COMPLETE, None),
            (DELETING, State.REJECTED, 60),
            (RETAINING, State.COMPLETE, 3_600),
            (KEEPING, State.RECEIVING, None),
            (KEEPING, State.PARTIAL, None),
            (KEEPING, State.REJECTED, 60),
        ],
        ids=lambda value: str(value.stale_action if isinstance(value, CleanupSettings) else value),
    )
    async def test_of_what_holds_bytes(
        self, tmp_path: Path, cleanup: CleanupSettings, state: State, lifetime: int | None
    ) -> None:
        settings = Settings(data_dir=tmp_path, storage=StorageSettings(disk_free_min_bytes=0), cleanup=cleanup)
        clock = FakeClock()
        async with core_on(settings, replace(system_machine(), clock=clock)) as running:
            kept = await running.keeping.add(1, NOW_MS, state)
            on_the_wire = status(kept, server_policy(settings).session.expiry, NOW_MS, 8).expires_s
            assert on_the_wire == (NEVER_S if lifetime is None else lifetime)
            assert await http_expires_ms(running) == (None if lifetime is None else NOW_MS + lifetime * 1000)
            clock.pass_s(LONG_S if lifetime is None else lifetime - 0.001)
            await running.core.cleanup.once(dry_run=False)
            assert (await running.keeping.get(1)).state in HOLDING
            if lifetime is not None:
                clock.pass_s(0.001)
                await running.core.cleanup.once(dry_run=False)
                assert (await running.keeping.get(1)).state is State.EXPIRED

    @pytest.mark.parametrize("state", sorted(TOMBSTONES))
    async def test_of_what_is_gone(self, tmp_path: Path, state: State) -> None:
        settings = Settings(data_dir=tmp_path, storage=StorageSettings(disk_free_min_bytes=0))
        async with core_on(settings) as running:
            gone = await running.keeping.add(1, NOW_MS, state)
            assert expires_s(gone, server_policy(settings).session.expiry, NOW_MS) == 0
            assert await http_expires_ms(running) is None


async def http_expires_ms(running: Running) -> int | None:
    gauges = Gauges({}, {}, 0, 0, None, None, 0)
    ports = control_ports(running.core, Exposition(running.core.metrics, lambda: gauges, "1.2.3"))
    file = await ports.files.get(TENANT, 1)
    assert file is not None
    return ports.files.expires_ms(file)
