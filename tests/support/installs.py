"""Installs the project into new environments without a network, from the wheels that `make venv` fetched."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.deadlines import SCENE_S

PROJECT = Path(__file__).parents[2]

WHEELS = Path(sys.prefix) / "wheels"
"""The locked wheels of requirements/run.txt and requirements/build.txt, their hashes checked."""

BASE_PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
"""The Python of this environment. The wheels are for its version."""

SOURCES = ("protocol", "daemon", "control", "device", "pyproject.toml", "README.md", "LICENSE")

needs_wheels = pytest.mark.skipif(not (WHEELS / ".complete").exists(), reason="needs what `make venv` fetches")


def offline(wheels: Path = WHEELS) -> Mapping[str, str]:
    """An environment in which pip finds `wheels` and nothing else, whatever this machine's configuration says."""
    return {
        "PATH": os.environ["PATH"],
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run without the network, and return the result whatever the exit status."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=PROJECT,
        env=dict(offline() if environment is None else environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=SCENE_S,
    )


def succeed(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run, and return standard output. Raises AssertionError with all output unless it succeeds."""
    done = run(*command, environment=environment)
    assert done.returncode == 0, f"{command} gave {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def project_wheel(directory: Path) -> Path:
    """Build the project's wheel in `directory`, from a copy, since a build leaves files next to its sources."""
    sources = directory / "sources"
    sources.mkdir()
    for name in SOURCES:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, sources)
    pip_wheel = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    succeed(sys.executable, *pip_wheel, f"--wheel-dir={directory}", sources)
    [built] = directory.glob("*.whl")
    return built
