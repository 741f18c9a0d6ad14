"""No ACK before the bytes are durable: the daemon's system calls and their order, as traced by strace.

Killing the daemon does not test this, because the kernel keeps written data in memory. Only the order of the calls
shows what a power cut would leave.
"""

import asyncio
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from daemon.adapters.files import SystemFiles
from daemon.storage.local.disk_writer import TOGETHER_FILES_MIN
from tests.support.ack_ledger import Connection, Ledger, connected
from tests.support.daemon_process import DaemonProcess
from tests.support.deadlines import SCENE_S
from tests.support.device_tokens import device_token
from tests.support.strace_log import SYNCING, SYNCING_ALL, WRAPPER, WRITING, Call, Checker, Verdict, calls
from tests.support.waiting import until

CONNECTIONS = 3
MANY_CONNECTIONS = 2 * TOGETHER_FILES_MIN
FILES = 3
FILE_BYTES = 300_000
CHUNK_BYTES = 16 * 1024
PROMISES_MIN = 4 * CONNECTIONS * FILES
"""The window is much smaller than a file, so that every file takes several acknowledgements."""

SETTINGS = {"LIMITS__CHUNK_BYTES_MAX": str(CHUNK_BYTES), "LIMITS__WINDOW_BYTES": str(4 * CHUNK_BYTES)}

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt install strace")


@dataclass(frozen=True, slots=True)
class Run:
    """The system calls of a traced daemon."""

    trace: tuple[Call, ...]
    data_dir: Path
    port: int

    def verdict(self) -> Verdict:
        return Checker(self.data_dir, self.port).check(self.trace)

    def is_data(self, call: Call) -> bool:
        """Whether the call accesses the data file of an upload."""
        return call.target.startswith(f"{self.data_dir}/files/") and call.name != "fsync"

    def is_directory(self, call: Call) -> bool:
        return call.target.startswith(f"{self.data_dir}/files/") and call.name == "fsync"

    def is_catalog(self, call: Call) -> bool:
        return call.target == f"{self.data_dir}/catalog.sqlite-wal"


async def send(connection: Connection, number: int, rng: random.Random) -> None:
    """Send files of different sizes in different chunks, so that no two uploads share a range, some out of order."""
    for file in range(FILES):
        content = rng.randbytes(FILE_BYTES + 1000 * number + 100 * file)
        stream = await connection.open(f"{number}/{file}", content)
        chunk_bytes = CHUNK_BYTES - FILES * number - file
        starts = range(0, len(content), chunk_bytes)
        for first in range(0, len(starts), 3):
            for start in reversed(starts[first : first + 3]):
                await connection.chunk(stream, start, min(start + chunk_bytes, len(content)))
        await connection.finish(stream)


async def run(directory: Path, settings: Mapping[str, str], connections: int = CONNECTIONS) -> Run:
    """Send several uploads at a time to a daemon under strace."""
    trace, data_dir = directory / "trace", directory / "data"
    rng = random.Random(str(settings))
    ledger = Ledger()
    async with asyncio.timeout(SCENE_S):
        async with DaemonProcess(data_dir, {**SETTINGS, **settings}, (*WRAPPER, str(trace))) as daemon:
            token = await device_token(daemon, "device")

            async def work(number: int) -> None:
                async with connected(daemon.addresses.listen, token, ledger) as connection:
                    await send(connection, number, rng)

            await asyncio.gather(*(work(number) for number in range(connections)))
            assert await daemon.stop() == 0
        # The daemon may be gone before strace has written its last line.
        await until(lambda: trace.read_text().endswith("+++ exited with 0 +++\n"))
    ledger.check(data_dir)
    return Run(tuple(calls(trace.read_text().splitlines())), data_dir, daemon.addresses.listen[1])


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return asyncio.run(run(tmp_path_factory.mktemp("sync"), {}))


def test_no_ack_is_sent_before_bytes_name_and_record_are_synced(synced: Run) -> None:
    verdict = synced.verdict()
    assert verdict.violations == ()
    assert verdict.promises >= PROMISES_MIN


def test_the_checker_finds_missing_syncs_of_the_data(tmp_path: Path) -> None:
    verdict = asyncio.run(run(tmp_path, {"COMMIT__DURABILITY": "write"})).verdict()
    assert verdict.promises >= PROMISES_MIN
    assert any("its file not synced" in each for each in verdict.violations)
    assert any("its directory not synced" in each for each in verdict.violations)


def test_many_files_of_one_cycle_are_synced_together_before_any_ack(tmp_path: Path) -> None:
    """The cycle is long enough to take a chunk of every connection."""
    together = asyncio.run(run(tmp_path, {"COMMIT__CYCLE_MS": "50"}, MANY_CONNECTIONS))
    verdict = together.verdict()
    assert verdict.violations == ()
    assert verdict.promises >= FILES * MANY_CONNECTIONS
    apart = [call for call in together.trace if call.name != SYNCING_ALL]
    # On file systems other than ext4 and xfs, files are synced one by one.
    is_sound = SystemFiles().is_one_sound_file_system([tmp_path])
    assert bool(Checker(together.data_dir, together.port).check(apart).violations) is is_sound


Selection = Callable[[Run, Call], bool]


@pytest.mark.parametrize(
    ("selected", "violation"),
    [
        (lambda run, call: run.is_data(call) and call.name in WRITING, "not written"),
        (lambda run, call: run.is_data(call) and call.name in SYNCING, "its file not synced"),
        (lambda run, call: run.is_directory(call), "its directory not synced"),
        (lambda run, call: run.is_catalog(call) and call.name in WRITING, "its record not synced"),
        (lambda run, call: run.is_catalog(call) and call.name in SYNCING, "its record not synced"),
    ],
    ids=["write", "sync of the data", "sync of the directory", "write of the record", "sync of the record"],
)
@pytest.mark.parametrize("change", ["absent", "failed", "late"])
def test_the_checker_finds_an_ack_without_one_of_the_steps(
    synced: Run, selected: Selection, violation: str, change: str
) -> None:
    end = max(call.ended for call in synced.trace) + 1
    trace = []
    for call in synced.trace:
        match change:
            case _ if not selected(synced, call):
                trace.append(call)
            case "failed":
                trace.append(replace(call, result=-1))
            case "late":
                trace.append(replace(call, ended=end))
    verdict = Checker(synced.data_dir, synced.port).check(trace)
    assert any(violation in each for each in verdict.violations)


def test_the_checker_finds_a_record_that_comes_before_its_bytes(synced: Run) -> None:
    trace = [
        replace(call, begun=0) if synced.is_catalog(call) and call.name in WRITING else call for call in synced.trace
    ]
    verdict = Checker(synced.data_dir, synced.port).check(trace)
    assert any("before the bytes" in each for each in verdict.violations)


def test_interleaved_calls_of_threads_are_parsed() -> None:
    name = "".join(f"\\x{each:02x}" for each in b"/d/f")
    lines = [
        f'7 pwritev2(3<{name}>, [{{iov_base="\\x41\\x42", iov_len=2}}, {{iov_base="\\x43", iov_len=1}}], 2, 10, 0'
        " <unfinished ...>",
        f"8 fdatasync(3<{name}>) = -1 EIO (Input/output error)",
        "7 <... pwritev2 resumed>) = 2",
        '9 sendto(4<TCP:[127.0.0.1:1->127.0.0.1:2]>, "\\x28", 1, 0, NULL, 0) = 1',
        "7 +++ exited with 0 +++",
    ]
    sync, write, sent = calls(lines)
    assert (sync.name, sync.target, sync.result, sync.begun, sync.ended) == ("fdatasync", "/d/f", -1, 1, 1)
    assert (write.name, write.data, write.span, write.begun, write.ended) == ("pwritev2", b"AB", (10, 12), 0, 2)
    assert (sent.target, sent.data) == ("TCP:[127.0.0.1:1->127.0.0.1:2]", b"\x28")
