"""The C programs: compiled on first use, and again when their source changes."""

import hashlib
import os
import subprocess
import threading
from pathlib import Path

SOURCES = Path(__file__).parent
BUILT = SOURCES.parent / "build" / "benchmarks" / "bin"

FLAGS = ("-O3", "-march=native", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread")


def program(source: str, *libraries: str) -> Path:
    """The compiled program of `source`, such as "limit/receive.c", linked with `libraries`, such as "ssl".

    Raises subprocess.CalledProcessError when it does not compile; the compiler's messages go to standard error.
    """
    path = SOURCES / source
    digest = hashlib.sha256(repr((FLAGS, libraries)).encode())
    for text in [path, *sorted(SOURCES.glob("*/*.h"))]:
        digest.update(text.read_bytes())
    built = BUILT / f"{path.stem}-{digest.hexdigest()[:16]}"
    if not built.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        # Several test processes, and several threads of one, may compile at the same time.
        temporary = built.with_suffix(f".{os.getpid()}.{threading.get_ident()}.new")
        links = [f"-l{library}" for library in libraries]
        subprocess.run(["gcc", *FLAGS, str(path), "-o", str(temporary), *links], check=True)
        temporary.replace(built)
    return built
