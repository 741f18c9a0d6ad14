"""The machine that the figures were measured on, in one line."""

import os
import platform
from pathlib import Path


def describe(directory: Path, proc: Path = Path("/proc")) -> str:
    """Processor, cores, memory, kernel, Python, and the file system of `directory`. `proc` is like proc(5)."""
    fields = [line.partition(":") for line in (proc / "cpuinfo").read_text().splitlines()]
    model = next((value.strip() for name, _, value in fields if name.strip() == "model name"), platform.machine())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    file_system = _file_system(directory, (proc / "mounts").read_text())
    parts = (f"{os.cpu_count()} cores of {model}", f"{memory_gib:.0f} GiB", f"Linux {kernel}", file_system)
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def _file_system(directory: Path, mounts_text: str) -> str:
    """The type of the innermost mount that holds the directory; the latest one if several share a mount point."""
    mounts = [line.split()[1:3] for line in reversed(mounts_text.splitlines())]
    inside = [(place, kind) for place, kind in mounts if directory.resolve().is_relative_to(place)]
    return max(inside, key=lambda mount: len(mount[0]))[1]
