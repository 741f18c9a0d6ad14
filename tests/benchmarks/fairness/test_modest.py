"""The modest devices, against a daemon that serves them, and one that stands still."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import uplinkd
from benchmarks.fairness.modest import Fleet, modest
from benchmarks.fairness.stage import Stage

FLEET = Fleet(small=5, large=2, whole=20)

SECONDS = 1.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with uplinkd.serving(tmp_path) as daemon:
        yield Stage(daemon, tmp_path)


def test_every_chunk_and_file_is_answered_and_counted(stage: Stage) -> None:
    with modest(stage, FLEET, tls=False) as devices:
        measured = devices.measure(SECONDS)
    assert (measured.devices, measured.connected, measured.cut, measured.refused) == (7, 7, 0, 0)
    assert measured.tries == measured.welcomed > 0
    for latency in (measured.small, measured.large, measured.whole):
        assert latency.count > latency.unanswered == 0
        assert 0 < latency.p50_ms <= latency.p99_ms <= latency.max_ms


def test_what_gets_no_answer_counts_with_the_time_that_it_waited(stage: Stage) -> None:
    daemon = stage.daemon.server.process
    with modest(stage, FLEET, tls=False) as devices:
        daemon.send_signal(signal.SIGSTOP)
        try:
            measured = devices.measure(SECONDS)
        finally:
            daemon.send_signal(signal.SIGCONT)
    assert measured.small.unanswered == measured.small.count > 0
    assert measured.small.p50_ms > SECONDS * 1000
    assert measured.whole.unanswered == measured.whole.count
    assert measured.welcomed == 0
