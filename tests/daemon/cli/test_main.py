"""The console command: options, exit codes, and what each command does to a data directory without a daemon."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import pytest

from daemon.admin.commands import Commands
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Completion
from daemon.cli.dispatch import offline
from daemon.cli.main import EPILOG, Exit, Process, main, run
from daemon.core import DirectoryLocked
from daemon.identity.keys import KeysInvalid
from daemon.settings import Settings
from daemon.telemetry.logs import Logs
from daemon.upkeep.cleanup import CleanupReport
from protocol.ranges import DigestedRange
from tests.support.catalog_samples import REQUEST
from tests.support.fake_machine import NOW_MS
from tests.support.populated_store import keep


@dataclass(slots=True)
class FakeDaemon:
    """Stands for `serve`: keeps what it was given, and ends as told."""

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
        """What a command that must succeed says to programs."""
        assert self.run(*arguments, "--json") == Exit.DONE, self.err.getvalue()
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


class TestDevices:
    def test_from_enrolment_to_disabled_and_back(self, shell: Shell) -> None:
        assert shell.run("device", "add", "pump-7") == Exit.DONE
        assert re.search(r"^export UPLINK_SECRET=[A-Za-z0-9_-]{43}$", shell.out.getvalue(), re.MULTILINE)
        assert shell.run("device", "disable", "pump-7") == Exit.DONE
        assert shell.out.getvalue() == "device pump-7 of tenant default is disabled\n"
        (device,) = shell.records("device", "list")
        assert device["disabled_ms"] is not None
        assert shell.run("device", "enable", "pump-7") == Exit.DONE
        (device,) = shell.records("device", "list")
        assert (device["device"], device["is_enrolled"], device["disabled_ms"]) == ("pump-7", True, None)

    def test_what_is_printed_can_be_given_to_a_shell(self, shell: Shell) -> None:
        assert shell.run("device", "add", "pump-7", "--tenant", "acme") == Exit.DONE
        script = shell.out.getvalue() + 'echo "$UPLINK_TENANT $UPLINK_DEVICE ${#UPLINK_SECRET}"\n'
        said = subprocess.run(["bash", "-euc", script], check=True, capture_output=True, text=True).stdout
        assert said == "acme pump-7 43\n"

    def test_quiet_is_the_secret_alone(self, shell: Shell) -> None:
        assert shell.run("device", "add", "pump-7", "--quiet") == Exit.DONE
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", shell.out.getvalue())

    def test_the_second_time(self, shell: Shell) -> None:
        shell.run("device", "add", "pump-7")
        assert shell.run("device", "add", "pump-7") == Exit.FAILED
        assert "enrolled already" in shell.err.getvalue()
        assert shell.out.getvalue() == ""

    def test_a_bad_name_is_wrong_usage(self, shell: Shell) -> None:
        assert shell.run("device", "add", "pump/7") == Exit.USAGE
        assert shell.run("device", "add", "pump/7", "--json") == Exit.USAGE
        assert json.loads(shell.err.getvalue())["error"] == "REQUEST_INVALID"

    def test_lists_by_tenant(self, shell: Shell) -> None:
        shell.run("device", "add", "pump-7", "--tenant", "acme")
        shell.run("device", "add", "pump-8")
        assert [each["device"] for each in shell.records("device", "list", "--tenant", "acme")] == ["pump-7"]
        assert [each["device"] for each in shell.records("device", "list")] == ["pump-7", "pump-8"]

    def test_an_empty_list_says_what_to_do(self, shell: Shell) -> None:
        shell.data_dir.mkdir()
        assert shell.run("device", "list") == Exit.DONE
        assert shell.out.getvalue() == ""
        assert "uplinkd device add" in shell.err.getvalue()


class TestToken:
    def test_a_devices(self, shell: Shell) -> None:
        (issued,) = shell.records("token", "--subject", "pump-7", "--tenant", "acme", "--ttl", "2h")
        assert (issued["kind"], issued["subject"], issued["tenant"]) == ("device", "pump-7", "acme")
        assert (issued["scopes"], issued["expires_in_s"]) == (["upload"], 7200)

    def test_an_operators(self, shell: Shell) -> None:
        (issued,) = shell.records("token", "--operator", "--scope", "read", "--scope", "admin")
        assert (issued["kind"], issued["subject"], issued["scopes"]) == ("operator", "operator", ["admin", "read"])

    def test_the_token_alone_goes_to_standard_output(self, shell: Shell) -> None:
        assert shell.run("token", "--operator") == Exit.DONE
        assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", shell.out.getvalue())

    def test_for_whom(self, shell: Shell) -> None:
        assert shell.run("token") == Exit.USAGE
        assert "--subject" in shell.err.getvalue()

    def test_a_right_that_it_cannot_give(self, shell: Shell) -> None:
        assert shell.run("token", "--operator", "--scope", "upload") == Exit.USAGE

    @pytest.mark.parametrize("text", ["", "1.5h", "-1", "h", "1w", "1 h", "٣", "9" * 13])
    def test_times_that_are_none(self, shell: Shell, capsys: pytest.CaptureFixture[str], text: str) -> None:
        with pytest.raises(SystemExit) as exited:
            shell.run("token", "--operator", f"--ttl={text}")
        assert exited.value.code == Exit.USAGE
        assert "is no time" in capsys.readouterr().err

    @pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("2m", 120), ("1d", 86_400)])
    def test_times(self, shell: Shell, text: str, seconds: int) -> None:
        (issued,) = shell.records("token", "--operator", "--ttl", text)
        assert issued["expires_in_s"] == seconds


async def complete(data_dir: Path, content: bytes, stored: bytes) -> None:
    """One complete file, of which storage has other bytes perhaps."""
    async with keep(data_dir) as keeping:
        await keeping.catalog.open(replace(REQUEST, size=len(content), now_ms=NOW_MS))
        # CRC32C of b"123456789", the check value of RFC 3720.
        ranges = (DigestedRange(0, len(content), 0xE3069283),)
        await keeping.catalog.complete(Completion(1, 1, len(content), 0xE3069283, None, ranges, NOW_MS))
        keeping.path(1).write_bytes(stored)


class TestUpkeep:
    def test_cleanup(self, shell: Shell) -> None:
        shell.data_dir.mkdir()
        (report,) = shell.records("cleanup", "--dry-run")
        assert (report["dry_run"], report["stopped"]) == (True, None)
        (report,) = shell.records("cleanup")
        assert report["dry_run"] is False

    @pytest.mark.parametrize(("stored", "code"), [(b"123456789", Exit.DONE), (b"123456780", Exit.DAMAGED)])
    def test_verify(self, shell: Shell, stored: bytes, code: Exit) -> None:
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
    """Without a daemon, and with a cleanup that stops early."""
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
    def test_somebody_holds_the_directory_and_does_not_answer(self, shell: Shell) -> None:
        shell.data_dir.mkdir()

        @asynccontextmanager
        async def locked(_: Settings) -> AsyncIterator[Commands]:
            raise DirectoryLocked("another uplinkd owns it")
            yield

        shell.process = replace(shell.process, offline=locked)
        assert shell.run("device", "list") == Exit.SILENT
        assert "no daemon answers" in shell.err.getvalue()


class TestServe:
    def test_what_the_daemon_is_given(self, shell: Shell) -> None:
        assert shell.run("serve", "--set", "listen.port=7711") == Exit.DONE
        ((settings, environment, pid),) = shell.daemon.given
        assert (settings.listen.port, settings.data_dir) == (7711, shell.data_dir)
        assert (environment, pid) == (shell.process.environment, 4711)
        assert shell.daemon.again == [settings]

    def test_logs_go_to_standard_error(self, shell: Shell) -> None:
        shell.run("serve")
        assert json.loads(shell.err.getvalue())["event"] == "ready"
        assert shell.out.getvalue() == ""

    def test_verbose(self, shell: Shell) -> None:
        shell.run("serve", "-v")
        shell.run("serve", "-v", "--set", "log.level=error")
        assert [settings.log.level for settings, _, _ in shell.daemon.given] == ["debug", "error"]

    def test_an_exit_status_of_its_own(self, shell: Shell) -> None:
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
    def test_a_start_that_fails(self, shell: Shell, error: BaseException, code: Exit) -> None:
        shell.daemon.error = error
        assert shell.run("serve") == code
        last = shell.err.getvalue().splitlines()[-1]
        assert last.startswith("uplinkd: ")
        assert str(error) in last


class TestSettings:
    def test_the_file_of_the_flag_is_stronger_than_that_of_the_environment(self, shell: Shell) -> None:
        for port in (1, 2):
            (shell.root / f"{port}.toml").write_text(f"[listen]\nport = {port}\n")
        environment = {**shell.process.environment, "UPLINKD_CONFIG": str(shell.root / "1.toml")}
        shell.process = replace(shell.process, environment=environment)
        shell.run("serve")
        shell.run("serve", "--config", str(shell.root / "2.toml"))
        assert [settings.listen.port for settings, _, _ in shell.daemon.given] == [1, 2]

    @pytest.mark.parametrize("command", ["serve", "check-config", "status", "cleanup", "verify"])
    def test_bad_settings(self, shell: Shell, command: str) -> None:
        assert shell.run(command, "--set", "listen.prot=1") == Exit.USAGE
        assert "listen.prot (flag listen.prot): unknown key; did you mean listen.port?" in shell.err.getvalue()
        assert not shell.data_dir.exists()

    @pytest.mark.parametrize("text", ["listen.port", "=1"])
    def test_flags_that_are_no_pairs(self, shell: Shell, capsys: pytest.CaptureFixture[str], text: str) -> None:
        with pytest.raises(SystemExit) as exited:
            shell.run("serve", "--set", text)
        assert exited.value.code == Exit.USAGE
        assert "is not KEY=VALUE" in capsys.readouterr().err

    def test_check_config(self, shell: Shell) -> None:
        assert shell.run("check-config", "--set", "listen.port=7711") == Exit.DONE
        said = shell.out.getvalue()
        assert "listen.port = 7711  # flag\n" in said
        assert f'data_dir = "{shell.data_dir}"  # environment UPLINKD_DATA_DIR\n' in said
        assert "keys: ok" in said
        assert not shell.data_dir.exists()

    def test_check_config_for_programs(self, shell: Shell) -> None:
        records = shell.records("check-config")
        assert {"key": "listen.port", "value": 7710, "origin": "default"} in records
        assert {"check": "tls", "is_good": True, "detail": "off: plain TCP"} in records

    def test_check_config_that_finds_something(self, shell: Shell) -> None:
        assert shell.run("check-config", "--quiet", "--set", "auth.jwks_file=/nowhere/keys.json") == Exit.USAGE
        (line,) = shell.out.getvalue().splitlines()
        assert line.startswith("keys: NOT OK: ")


class TestProgram:
    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            main(["--version"])
        assert exited.value.code == 0
        assert capsys.readouterr().out == f"uplinkd {version('uplinkd')}\n"

    def test_every_exit_code_is_documented(self) -> None:
        assert [int(code) for code in re.findall(r"^  (\d+) ", EPILOG, re.MULTILINE)] == list(Exit)

    @pytest.mark.parametrize("arguments", [[], ["device"], ["nonsense"], ["device", "add"]], ids=repr)
    def test_wrong_usage(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        assert exited.value.code == Exit.USAGE
        assert "usage: uplinkd" in capsys.readouterr().err

    def test_main_works_on_the_process_itself(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("UPLINKD_DATA_DIR", str(tmp_path))
        assert main(["device", "add", "pump-7", "--json"]) == Exit.DONE
        assert json.loads(capsys.readouterr().out)["device"] == "pump-7"

    def test_a_reader_that_has_enough(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("UPLINKD_DATA_DIR", str(tmp_path))
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as out:
            monkeypatch.setattr(sys, "stdout", out)
            assert main(["check-config"]) == Exit.FAILED
            assert out.closed
