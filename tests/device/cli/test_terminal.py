"""What the command line says."""

import io
import json

import pytest

from device.cli.terminal import Terminal
from device.report import UploadProgress


class FakeTty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_people_and_programs_read_different_results() -> None:
    said, written, quiet = io.StringIO(), io.StringIO(), io.StringIO()
    for out, silent, as_json in ((said, False, False), (written, False, True), (quiet, True, False)):
        Terminal(out, io.StringIO(), quiet=silent, as_json=as_json).result("done: ü", {"name": "ü", "size": 3})
    assert said.getvalue() == "done: ü\n"
    assert json.loads(written.getvalue()) == {"name": "ü", "size": 3}
    assert quiet.getvalue() == ""


def test_failures_go_to_standard_error_even_when_quiet() -> None:
    out, err = io.StringIO(), io.StringIO()
    Terminal(out, err, quiet=True, as_json=False).failure("no")
    assert (out.getvalue(), err.getvalue()) == ("", "uplink: no\n")


@pytest.mark.parametrize(
    ("err", "quiet", "as_json"),
    [(io.StringIO(), False, False), (FakeTty(), True, False), (FakeTty(), False, True)],
)
def test_progress_shows_on_a_terminal_alone(err: io.StringIO, quiet: bool, as_json: bool) -> None:
    bar = Terminal(io.StringIO(), err, quiet=quiet, as_json=as_json).bar("log.bin", 100)
    bar.show(UploadProgress("log.bin", 100, 50, 1, 60))
    bar.close()
    assert err.getvalue() == ""


def test_the_bar_shows_resumes() -> None:
    err = FakeTty()
    bar = Terminal(io.StringIO(), err, quiet=False, as_json=False).bar("log.bin", 2048)
    bar.show(UploadProgress("log.bin", 2048, 1024, 1, 1024))
    bar.show(UploadProgress("log.bin", 2048, 2048, 2, 3072))
    bar.show(UploadProgress("log.bin", 2048, 2048, 2, 3072))
    bar.close()
    text = err.getvalue()
    assert "log.bin" in text
    assert "2.00k/2.00k" in text
    assert "resumed 2x" in text
