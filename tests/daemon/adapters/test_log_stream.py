"""A stream that never makes its writer wait: on a pipe whose reader stalls, and comes back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from daemon.adapters.log_stream import QUEUE_CHARS_MAX, LogStream
from tests.support.deadlines import DEADLINE_S

LINE = "x" * 1000 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """The reading and the writing end."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as writer:
        yield reader, writer


def test_lines_come_out_in_order(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    stream = LogStream(writer)
    for number in range(100):
        stream.write(f"{number}\n")
    assert [reader.readline() for _ in range(100)] == [f"{number}\n" for number in range(100)]
    assert stream.finish(DEADLINE_S)
    assert not stream.isatty()


def test_a_reader_that_stalls_makes_nobody_wait_and_learns_how_much_it_missed(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    stream = LogStream(writer)
    stream.describe_dropped = lambda count: f"dropped {count}\n"
    written = 0
    while not stream.dropped:
        stream.write(LINE)
        written += 1
    assert written * len(LINE) > QUEUE_CHARS_MAX
    assert not stream.finish(0.01)
    assert {reader.readline() for _ in range(written - 1)} == {LINE}
    assert stream.finish(DEADLINE_S)
    stream.write("again\n")
    assert [reader.readline(), reader.readline()] == ["dropped 1\n", "again\n"]


def test_a_reader_that_is_gone_does_not_end_the_stream(pipe: tuple[TextIO, TextIO]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as writer:
        stream = LogStream(writer)
        for _ in range(10):
            stream.write(LINE)
        assert stream.finish(DEADLINE_S)
        os.dup2(pipe[1].fileno(), writer.fileno())


STALLED = """
import sys
from daemon.adapters.exits import leave
from daemon.adapters.log_stream import LogStream
stream = LogStream(sys.stderr)
for _ in range(1000):
    stream.write("x" * 1000 + "\\n")
print("written", flush=True)
assert not stream.finish(0.1)
leave(3)
"""


def test_the_process_can_end_while_the_reader_stalls() -> None:
    with subprocess.Popen([sys.executable, "-c", STALLED], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(DEADLINE_S) == 3
        assert process.stdout is not None
        assert process.stdout.read() == b"written\n"
