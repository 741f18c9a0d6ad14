"""`python -m daemon` is `uplinkd`."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_is_the_console_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "daemon", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"uplinkd {version('uplinkd')}\n"


def test_it_has_the_commands_exit_code() -> None:
    failed = subprocess.run(
        [sys.executable, "-m", "daemon", "check-config", "--set", "nonsense=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 2
    assert "nonsense" in failed.stderr
