"""A lock that was good yesterday still installs today, with the pip of Debian 12, although there are newer releases."""

import base64
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.support.installs import run, succeed

SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip 23.0, by the system's Python."""
    if not SYSTEM_PYTHON.exists():
        pytest.skip(f"needs {SYSTEM_PYTHON} with pip 23.0")
    path = tmp_path_factory.mktemp("pip") / "venv"
    try:
        succeed(SYSTEM_PYTHON, "-m", "venv", path)
    except AssertionError:
        pytest.skip("needs python3-venv with pip 23.0")
    if "pip 23.0" not in (version := succeed(path / "bin" / "pip", "--version")):
        pytest.skip(f"needs pip 23.0 in {SYSTEM_PYTHON}, and it has {version.split()[1]}")
    return path


def publish(index: Path, name: str, version: str, *metadata: str) -> str:
    """Put a wheel without code into the index, a directory laid out by PEP 503; its SHA-256."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    records = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for path, text in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*records, f"{info}/RECORD,,", ""])
    wheel = index / name / f"{name}-{version}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    links = "".join(f'<a href="{each.name}">{each.name}</a>\n' for each in sorted(wheel.parent.glob("*.whl")))
    (wheel.parent / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def write_lock(directory: Path, coverage: str) -> tuple[Path, Path]:
    """A lock of reporter and of `coverage`, as it is to be named there, and an index where coverage is newer by now."""
    index = directory / "index"
    extra = ("Provides-Extra: toml", "Requires-Dist: parser; extra == 'toml'")
    hashes = {
        "reporter==1.0": publish(index, "reporter", "1.0", "Requires-Dist: coverage[toml]>=1.0"),
        f"{coverage}==1.0": publish(index, "coverage", "1.0", *extra),
        "parser==1.0": publish(index, "parser", "1.0"),
    }
    publish(index, "coverage", "1.1", *extra)
    lock = directory / "lock.txt"
    lock.write_text("".join(f"{pin} \\\n    --hash=sha256:{digest}\n" for pin, digest in hashes.items()))
    return index, lock


def install(environment: Path, index: Path, lock: Path) -> "subprocess.CompletedProcess[str]":
    settings = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.as_uri()}
    pip_install = (environment / "bin" / "python", "-m", "pip", "install", "--require-hashes", "--no-cache-dir")
    return run(*pip_install, "--target", lock.parent / "target", "--requirement", lock, environment=settings)


def test_a_lock_that_names_the_extra_installs(environment: Path, tmp_path: Path) -> None:
    done = install(environment, *write_lock(tmp_path, "coverage[toml]"))
    assert done.returncode == 0, done.stderr
    packages = {path.name for path in (tmp_path / "target").glob("*.dist-info")}
    assert packages == {"reporter-1.0.dist-info", "coverage-1.0.dist-info", "parser-1.0.dist-info"}


def test_a_lock_without_the_extra_is_refused(environment: Path, tmp_path: Path) -> None:
    done = install(environment, *write_lock(tmp_path, "coverage"))
    assert done.returncode != 0
    assert "coverage[toml]" in done.stderr
    assert "--require-hashes" in done.stderr
