import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import process, uplinkd, wire
from benchmarks.devices import devices, save
from benchmarks.uplinkd import Uplinkd
from protocol.constants import SIZE_UNKNOWN

COUNT = 5


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uplinkd]:
    with uplinkd.serving(tmp_path_factory.mktemp("daemon")) as serving:
        yield serving


def preambles(daemon: Uplinkd, path: Path) -> Path:
    opening = wire.opening("log", SIZE_UNKNOWN)
    return save((wire.hello(daemon.token(f"device-{number}")) + opening for number in range(COUNT)), path)


def test_devices_append_and_resume_after_a_cut(daemon: Uplinkd, tmp_path: Path) -> None:
    with devices(daemon.port, COUNT, tmp_path / "log", unanswered_max=2) as fleet:
        first = preambles(daemon, tmp_path / "first")
        assert fleet.connect(first) > 0
        done = fleet.append(3, 1, 100, 0.1)
        assert done.chunks == 3
        assert 0 < done.p50_ms <= done.p99_ms <= done.max_ms
        fleet.cut()
        fleet.connect(first)
        assert fleet.append(COUNT, 1, 100, 0.1).chunks == COUNT
    assert daemon.metric("uplinkd_upload_resumes_total") >= 3
    assert daemon.metric("uplinkd_received_bytes_total") == (3 + COUNT) * 100


def test_a_refused_device_is_a_failure_that_names_the_code(daemon: Uplinkd, tmp_path: Path) -> None:
    bad = save([wire.hello("no token")], tmp_path / "bad")
    with (
        devices(daemon.port, 1, tmp_path / "log") as fleet,
        pytest.raises(process.Failed, match=r"frame 0x05, code 0x01"),
    ):
        fleet.connect(bad)


def test_too_few_preambles_are_a_failure(daemon: Uplinkd, tmp_path: Path) -> None:
    with devices(daemon.port, COUNT, tmp_path / "log") as fleet, pytest.raises(process.Failed, match="only 1 records"):
        fleet.connect(save([b"one"], tmp_path / "few"))


def test_an_impossible_command_is_a_failure(daemon: Uplinkd, tmp_path: Path) -> None:
    with devices(daemon.port, COUNT, tmp_path / "log") as fleet, pytest.raises(process.Failed, match="bad command"):
        fleet.append(COUNT + 1, 1, 100)


def test_a_server_that_closes_is_a_failure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def close_one() -> None:
            listener.accept()[0].close()

        closer = threading.Thread(target=close_one)
        closer.start()
        port: int = listener.getsockname()[1]
        with devices(port, 1, tmp_path / "log") as fleet, pytest.raises(process.Failed, match=r"closed|no answer"):
            fleet.connect(save([b"hello"], tmp_path / "one"))
        closer.join()
