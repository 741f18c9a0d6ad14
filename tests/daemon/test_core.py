"""The core on a real directory: opened, locked, run and reloaded, with its failures reported."""

import errno
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import core as core_module
from daemon.adapters.files import SystemFiles
from daemon.catalog.interface import CatalogNewer
from daemon.catalog.records import State
from daemon.core import DirectoryLocked, system_machine
from daemon.identity.keys import KeysInvalid
from daemon.identity.tokens import Identity, Kind, Scope, TokenRefused
from daemon.sections import Auth, Limits, StorageSettings
from daemon.settings import Settings
from daemon.storage.local.disk_writer import TOGETHER_FILES_MIN
from daemon.tasks import background
from tests.support.fake_machine import NOW_MS
from tests.support.populated_store import CONTENT
from tests.support.recorded_files import sync, write
from tests.support.running_core import Running, core_on, failing
from tests.support.waiting import until

OPERATOR = Identity("default", "boss", Kind.OPERATOR, frozenset({Scope.READ}), None)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", storage=StorageSettings(disk_free_min_bytes=0))


@pytest.fixture
async def running(settings: Settings) -> AsyncIterator[Running]:
    async with core_on(settings) as running:
        yield running


class SinkingFiles(SystemFiles):
    """Files on a file system that offers to sync everything at once, and fails."""

    def is_one_sound_file_system(self, directories: Sequence[Path]) -> bool:
        return True

    def sync_file_system(self, fd: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")


class TestOpening:
    async def test_a_missing_directory_is_made_with_a_secret_that_only_the_owner_can_read(
        self, settings: Settings, running: Running
    ) -> None:
        assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(settings.secret_path.stat().st_mode) == 0o600
        assert running.core.disk.total_bytes > 0

    async def test_a_second_daemon_is_refused(self, settings: Settings, running: Running) -> None:
        with pytest.raises(DirectoryLocked, match=f"another uplinkd owns {settings.data_dir}: stop it"):
            async with core_on(settings):
                pass

    async def test_closing_the_core_releases_the_lock(self, settings: Settings) -> None:
        for _ in range(2):
            async with core_on(settings):
                pass

    async def test_a_failure_to_open_releases_the_lock(self, settings: Settings) -> None:
        settings.data_dir.mkdir(mode=0o700)
        settings.secret_path.write_text("short")
        settings.secret_path.chmod(0o600)
        with pytest.raises(KeysInvalid):
            async with core_on(settings):
                pass
        SystemFiles().close(SystemFiles().lock(settings.data_dir / "lock"))

    async def test_a_catalog_of_a_newer_program_is_refused(self, settings: Settings) -> None:
        async with core_on(settings) as running:
            await running.keeping.catalog._writer.run("age", lambda each: each.execute("PRAGMA user_version = 999"))
        with pytest.raises(CatalogNewer):
            async with core_on(settings):
                pass

    async def test_a_reopened_core_finds_its_uploads(self, settings: Settings) -> None:
        async with core_on(settings) as running:
            await running.keeping.add(1, NOW_MS, State.COMPLETE)
        async with core_on(settings) as running:
            assert (await running.keeping.get(1)).state is State.COMPLETE
            reading = await running.core.storage.contents.open(1)
            assert await reading.read(0, 100) == CONTENT
            await reading.close()

    async def test_the_switch_to_slower_syncs_is_logged(self, settings: Settings) -> None:
        async with core_on(settings, replace(system_machine(), files=SinkingFiles())) as running:
            ids = range(1, 1 + TOGETHER_FILES_MIN)
            for upload_id in ids:
                write(running.core.storage.staging, upload_id, 0, b"x")
            assert await sync(running.core.storage.staging, *ids) == {}
            (line,) = [each for each in running.log.lines if "error" in each]
            assert line["error"] == "[Errno 5] the disk is gone"
            assert running.log.at("warning") == ["files are synced one by one: their file system's sync failed"]

    async def test_disabled_devices_are_known_from_the_start(self, settings: Settings) -> None:
        async with core_on(settings) as running:
            await running.core.catalog.set_disabled("default", "bad", True, NOW_MS)
        async with core_on(settings) as running:
            assert running.core.gate.is_disabled("default", "bad")


class TestRunning:
    async def test_catalog_transactions_are_timed(self, running: Running) -> None:
        duration = running.core.metrics.catalog_batch_duration
        before = duration.count
        await running.core.catalog.set_disabled("default", "camera", True, 1)
        await running.core.catalog.disabled()
        assert duration.count == before + 1, "reads are not transactions"
        assert duration.total > 0

    async def test_uploads_are_counted(self, running: Running) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        async with background(running.core.run()):
            await until(lambda: running.core.counts.get(State.COMPLETE) == 1)

    async def test_devices_disabled_by_another_process_become_known(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(core_module, "COUNT_INTERVAL_S", 0.01)
        running.core.settings = replace_auth(running.core.settings, revocation_s=0.001)
        async with background(running.core.run()):
            await until(lambda: running.core.counts)
            await running.core.catalog.set_disabled("default", "bad", True, NOW_MS)
            await until(lambda: running.core.gate.is_disabled("default", "bad"))

    async def test_a_failing_catalog_is_reported_and_asked_again(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(core_module, "COUNT_INTERVAL_S", 0.01)
        core, works = running.core, running.core.catalog
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        core.catalog = failing()
        async with background(core.run()):
            await until(lambda: "the catalog could not be read" in running.log.at("warning"))
            core.catalog = works
            await until(lambda: core.counts)

    async def test_missing_acknowledged_bytes_are_reported(self, running: Running) -> None:
        await running.keeping.add(1, NOW_MS)
        running.keeping.path(1).unlink()
        async with background(running.core.run()):
            await until(lambda: running.core.recovery.report.doubtful)
        assert running.core.recovery.report.doubtful_ids == (1,)


class TestReload:
    async def test_new_limits_are_applied(self, running: Running) -> None:
        core = running.core
        core.reload(
            core.settings.model_copy(
                update={
                    "limits": Limits(ranges_max=3),
                    "storage": StorageSettings(quota_bytes_per_device=5, size_max_bytes=6),
                }
            )
        )
        policy = core.admission.policy
        assert (policy.ranges_max, policy.quota_bytes_per_device, policy.size_max_bytes) == (3, 5, 6)
        assert core.settings.limits.ranges_max == 3

    async def test_tokens_are_issued_and_verified_by_the_new_settings(self, running: Running) -> None:
        core = running.core
        old = core.issuer.issue(OPERATOR, 60, NOW_MS)
        core.reload(replace_auth(core.settings, audience="elsewhere"))
        with pytest.raises(TokenRefused, match="another audience than elsewhere"):
            core.verifier.verify(old, NOW_MS)
        assert core.verifier.verify(core.issuer.issue(OPERATOR, 60, NOW_MS), NOW_MS).subject == "boss"

    async def test_the_secret_is_read_again(self, running: Running) -> None:
        core = running.core
        old = core.issuer.issue(OPERATOR, 60, NOW_MS)
        core.settings.secret_path.write_text("c2VjcmV0" * 6)
        core.reload(core.settings)
        with pytest.raises(TokenRefused, match="signature"):
            core.verifier.verify(old, NOW_MS)
        assert core.verifier.verify(core.issuer.issue(OPERATOR, 60, NOW_MS), NOW_MS).subject == "boss"

    async def test_invalid_keys_change_nothing(self, running: Running) -> None:
        core = running.core
        old_settings, old_policy = core.settings, core.admission.policy
        token = core.issuer.issue(OPERATOR, 60, NOW_MS)
        missing = replace_auth(old_settings, jwks_file=old_settings.data_dir / "missing.json")
        with pytest.raises(KeysInvalid):
            core.reload(missing.model_copy(update={"storage": StorageSettings(size_max_bytes=1)}))
        assert core.settings is old_settings
        assert core.admission.policy is old_policy
        assert core.verifier.verify(token, NOW_MS).subject == "boss"


def replace_auth(settings: Settings, **changes: object) -> Settings:
    """The settings with changes to `auth`."""
    return settings.model_copy(update={"auth": Auth.model_validate(settings.auth.model_dump() | changes)})
