"""The console command: options, exit codes, and each command on a data directory without a daemon."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import pytest

from daemon.admin.commands import Commands
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import CleanupReport, Completion
from daemon.cli.dispatch import offline
from daemon.cli.main import EPILOG, Exit, Process, main, run
from daemon.core import DirectoryLocked
from daemon.identity.keys import KeysInvalid
from daemon.settings import Settings
from daemon.telemetry.logs import Logs
from protocol.ranges import DigestedRange
from tests.support.catalog_samples import REQUEST
from tests.support.fake_machine import NOW_MS
from tests.support.populated_store import keep
from tests.support.umask import current_umask, umask_set


@dataclass(slots=True)
class FakeDaemon:
    """Replaces `serve`: records its arguments, and ends with the given outcome."""

    status: int = 0
    error: BaseException | None = None
    given: list[tuple[Settings, Mapping[str, str], int]] = field(default_factory=list)
    again: list[Settings] = field(default_factory=list)

    async def serve(
        self, settings: Settings, load: Callable[[], Settings], environment: Mapping[str, str], pid: int, logs: Logs
    ) -> int:
        self.given.append((settings, environment, pid))
        self.again.append(load())
        logs.logger().info("ready", listen="here")
        if self.error is not None:
            raise self.error
        return self.status


class Shell:
    """Runs commands on a data directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.out, self.err = StringIO(), StringIO()
        self.daemon = FakeDaemon()
        self.process = Process(
            environment={"UPLINKD_DATA_DIR": str(self.data_dir)},
            out=self.out,
            err=self.err,
            pid=4711,
            uid=os.geteuid(),
            serve=self.daemon.serve,
            offline=offline,
            patience_s=0,
        )

    def run(self, *arguments: str) -> int:
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        return run(arguments, self.process)

    def records(self, *arguments: str) -> list[dict[str, object]]:
        """The JSON records that a successful command prints."""
        assert self.run(*arguments, "--json") == Exit.DONE, self.err.getvalue()
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


class TestDevices:
    def test_a_device_is_enrolled_disabled_and_enabled(self, shell: Shell) -> None:
        assert shell.run("device", "add", "pump-7") == Exit.DONE
        assert re.search(r"^export UPLINK_SECRET=[A-Za-z0-9_-]{43}$", shell.out.getvalue(), re.MULTILINE)
        assert shell.run("device", "disable", "pump-7") == Exit.DONE
        assert shell.out.getvalue() == "device pump-7 of tenant default is disabled\n"
        (device,) = shell.records("device", "list")
        assert device["disabled_ms"] is not None
        assert shell.run("device", "enable", "pump-7") == Exit.DONE
        (device,) = shell.records("device", "list")
        assert (device["device"], device["is_enrolled"], device["disabled_ms"]) == ("pump-7", True, None)

    def test_a_shell_can_run_the_output(self, shell: Shell) -> None:
        assert shell.run("device", "add", "pump-7", "--tenant", "acme") == Exit.DONE
        script = shell.out.getvalue() + 'echo "$UPLINK_TENANT $UPLINK_DEVICE ${#UPLINK_SECRET}"\n'
        output = subprocess.run(["bash", "-euc", script], check=True, capture_output=True, text=True).stdout
        assert output == "acme pump-7 43\n"

    def test_quiet_prints_only_the_secret(self, shell: Shell) -> None:
        assert shell.run("device", "add", "pump-7", "--quiet") == Exit.DONE
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", shell.out.getvalue())

    def test_a_device_cannot_be_enrolled_twice(self, shell: Shell) -> None:
        shell.run("device", "add", "pump-7")
        assert shell.run("device", "add", "pump-7") == Exit.FAILED
        assert "already enrolled" in shell.err.getvalue()
        assert shell.out.getvalue() == ""

    def test_an_invalid_name_is_wrong_usage(self, shell: Shell) -> None:
        assert shell.run("device", "add", "pump/7") == Exit.USAGE
        assert shell.run("device", "add", "pump/7", "--json") == Exit.USAGE
        assert json.loads(shell.err.getvalue())["error"] == "REQUEST_INVALID"

    def test_devices_can_be_listed_by_tenant(self, shell: Shell) -> None:
        shell.run("device", "add", "pump-7", "--tenant", "acme")
        shell.run("device", "add", "pump-8")
        assert [each["device"] for each in shell.records("device", "list", "--tenant", "acme")] == ["pump-7"]
        assert [each["device"] for each in shell.records("device", "list")] == ["pump-7", "pump-8"]

    def test_an_empty_list_says_how_to_enrol_a_device(self, shell: Shell) -> None:
        shell.data_dir.mkdir()
        assert shell.run("device", "list") == Exit.DONE
        assert shell.out.getvalue() == ""
        assert "uplinkd device add" in shell.err.getvalue()


class TestToken:
    def test_a_token_for_a_device(self, shell: Shell) -> None:
        (issued,) = shell.records("token", "--subject", "pump-7", "--tenant", "acme", "--ttl", "2h")
        assert (issued["kind"], issued["subject"], issued["tenant"]) == ("device", "pump-7", "acme")
        assert (issued["scopes"], issued["expires_in_s"]) == (["upload"], 7200)

    def test_a_token_for_an_operator(self, shell: Shell) -> None:
        (issued,) = shell.records("token", "--operator", "--scope", "read", "--scope", "admin")
        assert (issued["kind"], issued["subject"], issued["scopes"]) == ("operator", "operator", ["admin", "read"])

    def test_only_the_token_goes_to_standard_output(self, shell: Shell) -> None:
        assert shell.run("token", "--operator") == Exit.DONE
        assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", shell.out.getvalue())

    def test_a_token_needs_a_subject(self, shell: Shell) -> None:
        assert shell.run("token") == Exit.USAGE
        assert "--subject" in shell.err.getvalue()

    def test_a_scope_that_the_kind_cannot_have_is_refused(self, shell: Shell) -> None:
        assert shell.run("token", "--operator", "--scope", "upload") == Exit.USAGE

    @pytest.mark.parametrize("text", ["", "1.5h", "-1", "h", "1w", "1 h", "٣", "9" * 13])
    def test_an_invalid_duration_is_wrong_usage(
        self, shell: Shell, capsys: pytest.CaptureFixture[str], text: str
    ) -> None:
        with pytest.raises(SystemExit) as exited:
            shell.run("token", "--operator", f"--ttl={text}")
        assert exited.value.code == Exit.USAGE
        assert "is not a duration" in capsys.readouterr().err

    @pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("2m", 120), ("1d", 86_400)])
    def test_durations_have_units(self, shell: Shell, text: str, seconds: int) -> None:
        (issued,) = shell.records("token", "--operator", "--ttl", text)
        assert issued["expires_in_s"] == seconds


async def complete(data_dir: Path, content: bytes, stored: bytes) -> None:
    """Make a complete file; `stored` may differ from its content."""
    async with keep(data_dir) as keeping:
        await keeping.catalog.open(replace(REQUEST, size=len(content), now_ms=NOW_MS))
        # CRC32C of b"123456789", the check value of RFC 3720.
        ranges = (DigestedRange(0, len(content), 0xE3069283),)
        await keeping.catalog.complete(Completion(1, 1, len(content), 0xE3069283, None, ranges, NOW_MS))
        keeping.path(1).write_bytes(stored)


class TestUpkeep:
    def test_cleanup_prints_its_report(self, shell: Shell) -> None:
        shell.data_dir.mkdir()
        (report,) = shell.records("cleanup", "--dry-run")
        assert (report["dry_run"], report["stopped"]) == (True, None)
        (report,) = shell.records("cleanup")
        assert report["dry_run"] is False

    @pytest.mark.parametrize(("stored", "code"), [(b"123456789", Exit.DONE), (b"123456780", Exit.DAMAGED)])
    def test_verify_exits_by_what_it_finds(self, shell: Shell, stored: bytes, code: Exit) -> None:
        shell.data_dir.mkdir()
        asyncio.run(complete(shell.data_dir, b"123456789", stored))
        assert shell.run("verify", "--device", REQUEST.device) == code
        assert f"{REQUEST.name!r}: {'ok' if code is Exit.DONE else 'damaged'}" in shell.out.getvalue()
        assert shell.run("verify", "--device", "other") == Exit.DONE

    def test_status_without_a_daemon_is_a_failure(self, shell: Shell) -> None:
        shell.data_dir.mkdir()
        assert shell.run("status") == Exit.FAILED
        assert "does not run" in shell.out.getvalue()

    def test_a_cleanup_that_stopped_is_a_failure(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        shell.data_dir.mkdir()
        shell.process = replace(shell.process, offline=stopped)
        assert shell.run("cleanup") == Exit.FAILED
        assert "stopped early: the clocks disagree" in shell.out.getvalue()


@asynccontextmanager
async def stopped(settings: Settings) -> AsyncIterator[Commands]:
    """The offline commands, with a cleanup that stops early."""
    async with offline(settings) as commands:

        class Stopped:
            async def once(self, dry_run: bool) -> CleanupReport:
                report = await cleanup.once(dry_run)
                return replace(report, stopped="the clocks disagree")

        parts = commands._parts
        cleanup = parts.cleanup
        parts.cleanup = Stopped()  # type: ignore[misc]  # read-only to commands, not in the core behind them
        yield commands


class TestLocked:
    def test_a_locked_directory_without_an_answering_daemon_is_reported(self, shell: Shell) -> None:
        shell.data_dir.mkdir()

        @asynccontextmanager
        async def locked(_: Settings) -> AsyncIterator[Commands]:
            raise DirectoryLocked("another uplinkd owns it")
            yield

        shell.process = replace(shell.process, offline=locked)
        assert shell.run("device", "list") == Exit.SILENT
        assert "no daemon answers" in shell.err.getvalue()


class TestServe:
    def test_the_daemon_gets_settings_environment_and_process_id(self, shell: Shell) -> None:
        assert shell.run("serve", "--set", "listen.port=7711") == Exit.DONE
        ((settings, environment, pid),) = shell.daemon.given
        assert (settings.listen.port, settings.data_dir) == (7711, shell.data_dir)
        assert (environment, pid) == (shell.process.environment, 4711)
        assert shell.daemon.again == [settings]

    def test_logs_go_to_standard_error(self, shell: Shell) -> None:
        shell.run("serve")
        assert json.loads(shell.err.getvalue())["event"] == "ready"
        assert shell.out.getvalue() == ""

    def test_verbose_logs_at_debug_level(self, shell: Shell) -> None:
        shell.run("serve", "-v")
        shell.run("serve", "-v", "--set", "log.level=error")
        assert [settings.log.level for settings, _, _ in shell.daemon.given] == ["debug", "error"]

    def test_the_daemons_exit_status_is_passed_on(self, shell: Shell) -> None:
        shell.daemon.status = 7
        assert shell.run("serve") == Exit.FAILED

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (DirectoryLocked("another uplinkd owns it"), Exit.FAILED),
            (CatalogFailed("no room"), Exit.FAILED),
            (OSError(98, "cannot listen on ::1 port 1"), Exit.FAILED),
            (KeysInvalid("secret file x is short"), Exit.USAGE),
            (KeyboardInterrupt(), Exit.INTERRUPTED),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_failed_start_has_its_exit_code(self, shell: Shell, error: BaseException, code: Exit) -> None:
        shell.daemon.error = error
        assert shell.run("serve") == code
        last = shell.err.getvalue().splitlines()[-1]
        assert last.startswith("uplinkd: ")
        assert str(error) in last


class TestSettings:
    def test_the_file_from_the_flag_wins_over_the_environments(self, shell: Shell) -> None:
        for port in (1, 2):
            (shell.root / f"{port}.toml").write_text(f"[listen]\nport = {port}\n")
        environment = {**shell.process.environment, "UPLINKD_CONFIG": str(shell.root / "1.toml")}
        shell.process = replace(shell.process, environment=environment)
        shell.run("serve")
        shell.run("serve", "--config", str(shell.root / "2.toml"))
        assert [settings.listen.port for settings, _, _ in shell.daemon.given] == [1, 2]

    @pytest.mark.parametrize("command", ["serve", "check-config", "status", "cleanup", "verify"])
    def test_every_command_refuses_invalid_settings(self, shell: Shell, command: str) -> None:
        assert shell.run(command, "--set", "listen.prot=1") == Exit.USAGE
        assert "listen.prot (flag listen.prot): unknown key; did you mean listen.port?" in shell.err.getvalue()
        assert not shell.data_dir.exists()

    @pytest.mark.parametrize("text", ["listen.port", "=1"])
    def test_a_set_option_must_be_a_pair(self, shell: Shell, capsys: pytest.CaptureFixture[str], text: str) -> None:
        with pytest.raises(SystemExit) as exited:
            shell.run("serve", "--set", text)
        assert exited.value.code == Exit.USAGE
        assert "is not KEY=VALUE" in capsys.readouterr().err

    def test_check_config_prints_settings_and_checks(self, shell: Shell) -> None:
        assert shell.run("check-config", "--set", "listen.port=7711") == Exit.DONE
        output = shell.out.getvalue()
        assert "listen.port = 7711  # flag\n" in output
        assert f'data_dir = "{shell.data_dir}"  # environment UPLINKD_DATA_DIR\n' in output
        assert "keys: ok" in output
        assert not shell.data_dir.exists()

    def test_check_config_for_programs(self, shell: Shell) -> None:
        records = shell.records("check-config")
        assert {"key": "listen.port", "value": 7710, "origin": "default"} in records
        assert {"check": "tls", "is_good": True, "detail": "off: plain TCP"} in records

    def test_check_config_fails_when_a_check_fails(self, shell: Shell) -> None:
        assert shell.run("check-config", "--quiet", "--set", "auth.jwks_file=/nowhere/keys.json") == Exit.USAGE
        (line,) = shell.out.getvalue().splitlines()
        assert line.startswith("keys: NOT OK: ")


class TestProgram:
    @pytest.fixture(autouse=True)
    def umask(self) -> Iterator[None]:
        with umask_set(0o022):
            yield

    def test_version_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            main(["--version"])
        assert exited.value.code == 0
        assert capsys.readouterr().out == f"uplinkd {version('uplinkd')}\n"

    def test_every_exit_code_is_documented(self) -> None:
        assert [int(code) for code in re.findall(r"^  (\d+) ", EPILOG, re.MULTILINE)] == list(Exit)

    @pytest.mark.parametrize("arguments", [[], ["device"], ["nonsense"], ["device", "add"]], ids=repr)
    def test_wrong_usage_has_its_exit_code(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        assert exited.value.code == Exit.USAGE
        assert "usage: uplinkd" in capsys.readouterr().err

    def test_main_uses_the_real_process(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("UPLINKD_DATA_DIR", str(tmp_path))
        assert main(["device", "add", "pump-7", "--json"]) == Exit.DONE
        assert json.loads(capsys.readouterr().out)["device"] == "pump-7"
        assert current_umask() == 0o077

    def test_a_closed_pipe_is_not_an_error(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("UPLINKD_DATA_DIR", str(tmp_path))
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as out:
            monkeypatch.setattr(sys, "stdout", out)
            assert main(["check-config"]) == Exit.FAILED
            assert out.closed
