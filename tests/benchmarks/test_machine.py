"""The machine in one line: this one, and others by their /proc."""

import os
import platform
import subprocess
from pathlib import Path

import pytest

from benchmarks import machine
from tests.support.deadlines import DEADLINE_S


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU: fast\nmodel name\t: Some CPU: fast\n")
    (tmp_path / "mounts").write_text("/dev/sda / ext4 rw 0 0\n")
    return tmp_path


def test_this_machine_is_described(tmp_path: Path) -> None:
    df = subprocess.run(
        ["df", "--output=fstype", tmp_path], capture_output=True, text=True, check=True, timeout=DEADLINE_S
    )
    described = machine.describe(tmp_path)
    assert described.startswith(f"{os.cpu_count()} cores of ")
    assert f", {df.stdout.split()[-1]}, Python {platform.python_version()}" in described


def test_the_processor_is_named_once(proc: Path) -> None:
    assert machine.describe(proc, proc).count("cores of Some CPU: fast,") == 1


def test_a_processor_without_a_name_is_described_by_its_architecture(proc: Path) -> None:
    (proc / "cpuinfo").write_text("processor\t: 0\n")
    assert f"cores of {platform.machine()}," in machine.describe(proc, proc)


def test_the_file_system_is_the_latest_mount_at_the_innermost_mount_point(proc: Path) -> None:
    inside = [f"/dev/sdb {proc} xfs rw 0 0", f"/dev/sdc {proc} btrfs rw 0 0", f"tmpfs {proc}-not tmpfs rw 0 0"]
    (proc / "mounts").write_text("\n".join(["/dev/sda / ext4 rw 0 0", *inside, "tmpfs /proc tmpfs rw 0 0", ""]))
    assert ", btrfs," in machine.describe(proc, proc)
