"""Reading: pieces of an open file, and bytes that go straight to a socket."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from daemon.adapters.threads import Lane, SystemThreads
from daemon.storage.local import reading
from daemon.storage.local.calls import Call, call, work_through
from daemon.storage.local.reading import Readers
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_machine import FakeClock
from tests.support.recorded_files import RecordedFiles

DATA = bytes(range(251)) * 80_000
BROKEN = OSError(errno.EIO, "Input/output error")


class SlowClock(FakeClock):
    """`tick_s` pass at each look."""

    tick_s = 0.0

    def monotonic_s(self) -> float:
        self.pass_s(self.tick_s)
        return super().monotonic_s()


@pytest.fixture
def clock() -> SlowClock:
    return SlowClock()


@pytest.fixture
def files() -> RecordedFiles:
    return RecordedFiles()


@pytest.fixture
async def lane(files: RecordedFiles) -> AsyncIterator[Lane[Call]]:
    made: Lane[Call] = SystemThreads().lane("read", work_through)
    yield made
    await made.close()
    assert files.open_names == {}, "every descriptor is closed at the end"


@pytest.fixture
def written() -> list[str]:
    """Holds something while bytes are being written."""
    return []


@pytest.fixture
def readers(files: RecordedFiles, lane: Lane[Call], clock: SlowClock, written: list[str]) -> Readers:
    return Readers(files, lane, clock, lambda: bool(written))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "a file"
    made.write_bytes(DATA)
    return made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def received(theirs: socket.socket, count: int) -> bytes:
    """`count` bytes, as they come."""
    got = b""
    async with asyncio.timeout(DEADLINE_S):
        while len(got) < count:
            got += await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
    return got


async def settled(lane: Lane[Call]) -> None:
    """Everything queued on the lane is done."""
    await call(lane, lambda: None)


async def test_pieces_of_an_open_file(readers: Readers, path: Path) -> None:
    opened = await readers.open(path)
    assert opened.size == len(DATA)
    assert [await opened.read(start, 5) for start in (0, 7, len(DATA) - 2)] == [DATA[:5], DATA[7:12], DATA[-2:]]
    await opened.close()


async def test_a_cancelled_opening_leaves_nothing_open(
    readers: Readers, files: RecordedFiles, lane: Lane[Call], path: Path
) -> None:
    let_go = files.hold("open_to_read")
    opening = asyncio.ensure_future(readers.open(path))
    # A first turn of the loop puts the call on the lane.
    await asyncio.sleep(0)
    opening.cancel()
    let_go()
    await settled(lane)
    await settled(lane)
    assert files.open_names == {}


async def test_a_file_whose_size_cannot_be_read_is_closed(
    readers: Readers, files: RecordedFiles, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> int:
        raise BROKEN

    monkeypatch.setattr(files, "size", broken)
    with pytest.raises(OSError, match="Input/output"):
        await readers.open(path)
    assert files.open_names == {}


# To a socket.


async def test_bytes_go_to_a_socket_as_fast_as_it_takes_them(
    readers: Readers, path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    opened = await readers.open(path)
    receiving = asyncio.ensure_future(received(theirs, 10_000_000))
    async with aclosing(opened.send(ours.fileno(), 1000, 10_000_000)) as steps:
        taken = [step async for step in steps]
    assert await receiving == DATA[1000:10_001_000]
    assert sum(taken) == 10_000_000
    assert min(taken) > 0
    await opened.close()


@pytest.mark.parametrize(
    ("tick_s", "others", "turns"),
    [
        pytest.param(0.0, [], [10], id="all that the socket takes is one turn"),
        pytest.param(reading.SEND_TURN_S / 3.5, [], [4, 4, 2], id="but others get theirs when it has lasted too long"),
        pytest.param(reading.SEND_TURN_S * 2, [], [1] * 10, id="on a slow disk after each piece"),
        pytest.param(0.0, ["a chunk"], [1] * 10, id="while something is received after each piece"),
    ],
)
async def test_a_send_takes_turns_with_other_readers(
    readers: Readers,
    clock: SlowClock,
    path: Path,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    written: list[str],
    tick_s: float,
    others: list[str],
    turns: list[int],
) -> None:
    monkeypatch.setattr(reading, "SEND_BYTES", 1000)
    written.extend(others)
    ours, theirs = pair
    opened = await readers.open(path)
    clock.tick_s = tick_s
    async with aclosing(opened.send(ours.fileno(), 0, 9_999)) as steps:
        taken = [step async for step in steps]
    assert [-(-each // 1000) for each in taken] == turns
    assert await received(theirs, 9_999) == DATA[:9_999]
    await opened.close()


async def test_sending_ends_where_the_file_ends(
    readers: Readers, path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    opened = await readers.open(path)
    async with aclosing(opened.send(ours.fileno(), len(DATA) - 3, 10)) as steps:
        assert [step async for step in steps] == [3]
    assert await received(theirs, 3) == DATA[-3:]
    await opened.close()


async def test_sending_to_a_client_that_has_gone_raises(
    readers: Readers, path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    theirs.close()
    opened = await readers.open(path)
    with pytest.raises(BrokenPipeError):
        async with aclosing(opened.send(ours.fileno(), 0, 10)) as steps:
            await anext(steps)
    await opened.close()


async def test_a_cancelled_send_leaves_a_full_socket_as_it_is(
    readers: Readers, lane: Lane[Call], path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    opened = await readers.open(path)
    sent = 0
    with pytest.raises(TimeoutError):
        async with aclosing(opened.send(ours.fileno(), 0, len(DATA))) as steps:
            while True:
                # Nobody receives, so that the socket is full in the end, however soon this is over.
                async with asyncio.timeout(0.05):
                    sent += await anext(steps)
    await settled(lane)
    await opened.close()
    assert await received(theirs, sent) == DATA[:sent]
    ours.close()
    assert theirs.recv(1) == b"", "no other descriptor of it is open"
