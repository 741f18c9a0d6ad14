"""Programs that listen, fail, linger and refuse to end."""

import os
import select
import signal
import socket
import sys
from pathlib import Path

import pytest

from benchmarks import process
from tests.support.deadlines import DEADLINE_S

LISTEN = "import signal, socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); signal.pause()"

MIB = 1 << 20


def _python(before: str, *arguments: object) -> list[str]:
    """A program that runs the code `before` and then listens on the port given as its first argument."""
    return [sys.executable, "-c", f"{before}\n{LISTEN}", *map(str, arguments)]


def test_a_server_runs_during_the_block_and_is_terminated_afterwards(tmp_path: Path) -> None:
    port, log = process.free_port(), tmp_path / "log"
    with process.started(_python("print('begun', flush=True)", port), log, port) as server:
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S).close()
        assert server.process.poll() is None
        assert server.log.read_text() == "begun\n"
    assert server.process.returncode == -signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)


def test_a_server_is_terminated_when_the_measurement_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), process.started(["sleep", "60"], tmp_path / "log") as server:
        raise ZeroDivisionError
    assert server.process.returncode == -signal.SIGTERM


def test_a_server_gets_the_given_environment(tmp_path: Path) -> None:
    port, log = process.free_port(), tmp_path / "log"
    command = _python("import os; print(os.environ['COLOUR'], flush=True)", port)
    with process.started(command, log, port, os.environ | {"COLOUR": "blue"}):
        assert log.read_text() == "blue\n"


def test_a_server_that_ends_before_it_listens_fails_with_its_log(tmp_path: Path) -> None:
    port = process.free_port()
    with (
        pytest.raises(process.Failed, match=rf"port {port}: no disk"),
        process.started(["sh", "-c", "echo no disk; exit 1"], tmp_path / "log", port),
    ):
        pass


def test_a_server_that_refuses_to_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.1)
    fifo, port = tmp_path / "alive", process.free_port()
    os.mkfifo(fifo)
    refuse = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); f = open(sys.argv[2], 'w'); "
    alive = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        command = _python(f"{refuse}\nif os.fork() == 0: signal.pause()", port, fifo)
        with process.started(command, tmp_path / "log", port) as server:
            assert not select.select([alive], [], [], 0)[0]
        assert server.process.returncode == -signal.SIGKILL
        # End of file: no process holds the other end any more.
        assert select.select([alive], [], [], 30)[0]
        assert os.read(alive, 1) == b""
    finally:
        os.close(alive)


def test_processor_time_and_memory_include_the_children(tmp_path: Path) -> None:
    port = process.free_port()
    burn = "\n".join(
        [
            "import os, signal, time",
            "ready, done = os.pipe()",
            "if os.fork() == 0:",
            f" held = b'x' * {64 * MIB}",
            " while time.process_time() < 0.2: pass",
            " os.write(done, b'.'); signal.pause()",
            "os.read(ready, 1)",
        ]
    )
    with process.started(_python(burn, port), tmp_path / "log", port) as server:
        try:
            assert server.cpu_s() >= 0.19, "the kernel counts processor time in ticks of 10 ms"
            assert server.resident_bytes() >= 64 * MIB
        finally:
            os.killpg(server.process.pid, signal.SIGTERM)
    assert (server.cpu_s(), server.resident_bytes()) == (0, 0)


def test_forget_peak_resets_the_peak_of_memory(tmp_path: Path) -> None:
    port = process.free_port()
    with process.started(_python(f"b'x' * {64 * MIB}", port), tmp_path / "log", port) as server:
        assert server.peak_resident_bytes() >= server.resident_bytes() + 32 * MIB
        server.forget_peak()
        assert server.peak_resident_bytes() < server.resident_bytes() + 32 * MIB


def test_run_returns_what_the_program_printed() -> None:
    assert process.run(["sh", "-c", "echo $COLOUR; echo no >&2"], 60, {"COLOUR": "blue"}) == "blue\n"


def test_a_program_that_fails_is_reported_with_its_output() -> None:
    with pytest.raises(process.Failed, match=r"(?s)^sh -c .* exited with 3: some.*other"):
        process.run(["sh", "-c", "echo some; echo other >&2; exit 3"], 60)


def test_a_program_that_takes_too_long_is_reported_with_its_output() -> None:
    def message(timeout_s: float) -> str:
        with pytest.raises(process.Failed, match=f"sh took longer than {timeout_s} s") as failed:
            process.run(["sh", "-c", "echo begun; exec sleep 120"], timeout_s)
        return str(failed.value)

    # On a busy machine the program may not print anything for a while.
    assert any(message(timeout_s).endswith(": begun\n") for timeout_s in (0.2, 2, 20))
