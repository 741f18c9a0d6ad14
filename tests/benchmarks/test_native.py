"""When a C program is compiled, and how a compiler error is reported."""

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import native
from tests.support.deadlines import DEADLINE_S

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")

SOURCE = '#include <stdio.h>\n#include "../load/number.h"\nint main(void) { return printf("%d", NUMBER) < 0; }\n'


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(native, "SOURCES", tmp_path)
    monkeypatch.setattr(native, "BUILT", tmp_path / "build" / "bin")
    for name in ("limit", "load"):
        (tmp_path / name).mkdir()
    (tmp_path / "limit" / "tell.c").write_text(SOURCE)
    (tmp_path / "load" / "number.h").write_text("#define NUMBER 1\n")
    return tmp_path


def _output(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout


def test_a_program_is_compiled_once() -> None:
    first = native.program("limit/tell.c")
    compiled = first.stat()
    assert _output(first) == "1"
    again = native.program("limit/tell.c")
    assert again == first
    assert (again.stat().st_ino, again.stat().st_mtime_ns) == (compiled.st_ino, compiled.st_mtime_ns)
    assert list(native.BUILT.iterdir()) == [first]


def test_a_changed_header_in_either_directory_compiles_it_again(sources: Path) -> None:
    first = native.program("limit/tell.c")
    (sources / "load" / "number.h").write_text("#define NUMBER 2\n")
    second = native.program("limit/tell.c")
    assert (_output(first), _output(second)) == ("1", "2")


def test_a_source_that_changed_is_compiled_again(sources: Path) -> None:
    first = native.program("limit/tell.c")
    (sources / "limit" / "tell.c").write_text(SOURCE.replace("%d", "<%d>"))
    assert (_output(first), _output(native.program("limit/tell.c"))) == ("1", "<1>")


def test_other_libraries_make_another_program() -> None:
    assert native.program("limit/tell.c") != native.program("limit/tell.c", "m")


@pytest.mark.parametrize("body", ["return missing;", "int unused; return 0;"], ids=["error", "warning"])
def test_a_compiler_error_or_warning_is_a_failure_and_leaves_no_program(
    sources: Path, capfd: pytest.CaptureFixture[str], body: str
) -> None:
    (sources / "limit" / "broken.c").write_text(f"int main(void) {{ {body} }}\n")
    with pytest.raises(subprocess.CalledProcessError):
        native.program("limit/broken.c")
    assert "broken.c:1" in capfd.readouterr().err
    assert not list(native.BUILT.iterdir())
