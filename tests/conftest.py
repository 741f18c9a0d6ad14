"""What every test run says at its end, which tests were skipped and why, and what no test may leave behind."""

import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.umask import current_umask


@pytest.fixture(autouse=True, scope="module")
def umask_is_restored() -> Iterator[None]:
    before = current_umask()
    yield
    after = current_umask()
    os.umask(before)
    assert after == before, f"a test of this module left the umask {after:03o} behind, not {before:03o}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure: for machines that have all")


def pytest_configure() -> None:
    # A shell lets its background jobs ignore SIGINT, and so would every process that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    # The workers of pytest-xdist have no reporter; their reports arrive at the one that has.
    if isinstance(reporter, pytest.TerminalReporter) and session.config.getoption("--no-skips") and _reasons(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons = _reasons(terminalreporter)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason}")
    if not reasons:
        terminalreporter.write_line("no test was skipped")
    elif config.getoption("--no-skips"):
        terminalreporter.write_line(f"skipped in all: {reasons.total()}, and --no-skips allows none", red=True)
    else:
        terminalreporter.write_line(f"skipped in all: {reasons.total()}")


def _reasons(reporter: pytest.TerminalReporter) -> Counter[str]:
    """A module that is skipped whole counts as one."""
    found: Counter[str] = Counter()
    for report in reporter.getreports("skipped"):
        # A skip's longrepr is (path, line, reason).
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found[text.removeprefix("Skipped: ")] += 1
    return found
