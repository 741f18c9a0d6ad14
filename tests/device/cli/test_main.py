"""Usage, help, interruption."""

import argparse
import io
import os
import subprocess
import sys

import pytest

from device.cli import commands
from device.cli.exit_codes import ExitCode
from device.cli.main import main
from device.cli.settings import ConnectionSettings
from device.cli.terminal import Terminal

ENVIRONMENT = {"UPLINK_TOKEN": "t"}


@pytest.mark.parametrize("arguments", [[], ["fly"], ["send"], ["status", "a", "--secret", "x"]])
def test_wrong_usage_has_its_own_exit_code(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments, ENVIRONMENT)
    assert caught.value.code == ExitCode.USAGE
    assert "usage: uplink" in capsys.readouterr().err


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"], ENVIRONMENT)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    documented = [line.split()[0] for line in text.partition("exit codes:")[2].splitlines() if line.strip()]
    assert documented == [str(int(code)) for code in ExitCode]


def test_an_interruption_says_that_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(options: argparse.Namespace, settings: ConnectionSettings, terminal: Terminal) -> ExitCode:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "status", interrupted)
    err = io.StringIO()
    assert main(["status", "log.bin"], ENVIRONMENT, io.StringIO(), err) == ExitCode.INTERRUPTED
    assert "the same command resumes from there" in err.getvalue()


def test_a_missing_credential_is_named_when_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    err = io.StringIO()
    assert main(["status", "log.bin", "--device", "cam-1"], {}, io.StringIO(), err) == ExitCode.USAGE
    assert err.getvalue() == "uplink: no credential: set UPLINK_SECRET or UPLINK_TOKEN, or give --secret-file\n"


def test_the_command_runs_as_a_process() -> None:
    outcome = subprocess.run(
        [
            sys.executable,
            "-m",
            "device.cli.main",
            "status",
            "log.bin",
            "--server",
            "127.0.0.1:1",
            "--give-up-after",
            "0",
        ],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == ExitCode.UNREACHABLE
    assert outcome.stderr.startswith("uplink: 127.0.0.1:1 cannot be reached")
    assert "Traceback" not in outcome.stderr
