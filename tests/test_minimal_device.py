"""PROTOCOL.md's page of C compiles without a warning, and sends a file whatever the server answers."""

import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from protocol import codec, frames
from protocol.checksum import crc32c, sum8
from protocol.constants import (
    CHUNK_OVERHEAD_BYTES,
    Action,
    CredentialKind,
    Disposition,
    Durability,
    FrameType,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.support.deadlines import DEADLINE_S, PROCESS_S
from tests.support.protocol_document import DOCUMENT

HARNESS = """
#include <stdio.h>
#include <unistd.h>

static const char file[] = "FILE";

static int all(int fd, void *at, size_t n, int out) {
    for (size_t done = 0; done < n;) {
        ssize_t moved = out ? write(fd, (char *)at + done, n - done) : read(fd, (char *)at + done, n - done);
        if (moved <= 0) return -1;
        done += (size_t)moved;
    }
    return 0;
}

int link_read(void *to, size_t n) { return all(0, to, n, 0); }
int link_write(const void *from, size_t n) { return all(1, (void *)(uintptr_t)from, n, 1); }
int file_read(uint64_t at, void *to, size_t n) { memcpy(to, file + at, n); return 0; }
int main(void) { return upload("token", "name", sizeof file - 1); }
"""
CHUNK_BYTES = 400
CHUNK_COST_BYTES = CHUNK_BYTES + CHUNK_OVERHEAD_BYTES
FILE = bytes(65 + index % 26 for index in range(3000))


@pytest.fixture(scope="module")
def minimal_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: the minimal device of PROTOCOL.md cannot be compiled")
    [page] = re.findall(r"```c\n(.*?)```", DOCUMENT, re.DOTALL)
    directory = tmp_path_factory.mktemp("minimal")
    source, program = directory / "device.c", directory / "device"
    source.write_text(page + HARNESS.replace("FILE", FILE.decode()), encoding="utf-8")
    strict = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    subprocess.run([compiler, *strict, "-O1", "-o", program, source], check=True, timeout=PROCESS_S)
    return program


class Conversation:
    """A server of a few lines at the other end of the device's standard input and output."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.deadline = threading.Timer(
            DEADLINE_S, self.process.kill
        )  # a device that stalls ends the reads with an error
        self.deadline.start()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *raised: object) -> None:
        self.deadline.cancel()
        self.deadline.join()
        self.process.kill()
        self.process.wait(timeout=DEADLINE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def read(self, kind: FrameType) -> bytes:
        """The next frame of the device, which must be of this type; its body."""
        assert self.process.stdout is not None
        prefix = self.process.stdout.read(codec.PREFIX_BYTES)
        code, flags, _, length = codec.PREFIX.unpack(prefix)
        assert (FrameType(code), flags) == (kind, 0)
        return self.process.stdout.read(length)

    def send(self, frame: frames.ControlFrame, stream: int = 0) -> None:
        assert self.process.stdin is not None
        raw = codec.encode(frame, stream, 64)
        assert len(raw) <= 64
        self.process.stdin.write(raw)
        self.process.stdin.flush()

    def greet(self, state: UploadState, next_expected_byte: int, window_bytes: int = 2 * CHUNK_COST_BYTES) -> None:
        """The handshake and OPEN; chunks of at most 400 bytes, of which the window takes two."""
        hello = codec.decode(FrameType.HELLO, self.read(FrameType.HELLO))
        assert hello == frames.Hello(CredentialKind.TOKEN, 0, 64, token="token")
        self.send(frames.Welcome(1, Durability.SYNC, 4, 1, 60, 0, CHUNK_BYTES, window_bytes, 60, 0, 1))
        opened = codec.decode(FrameType.OPEN, self.read(FrameType.OPEN))
        assert opened == frames.Open(Disposition.RESUME_OR_CREATE, len(FILE), "name")
        self.send(frames.Opened(1, state, UploadState.NONE, next_expected_byte, 60), 1)

    def chunk(self) -> tuple[Span, bytes]:
        body = self.read(FrameType.CHUNK)
        start, end, checksum = codec.CHUNK_HEADERS[FrameType.CHUNK].unpack_from(body)
        data = body[17:]
        assert (len(data), sum8(data)) == (end - start + 1, checksum)
        return Span(start, end + 1), data

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def result(self) -> int:
        return self.process.wait(timeout=DEADLINE_S)


def test_the_minimal_device_sends_a_file(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 100)
        assert [device.chunk(), device.chunk()] == [(Span(100, 500), FILE[100:500]), (Span(500, 900), FILE[500:900])]
        device.send(frames.Ping(9))
        assert device.read(FrameType.PONG) == (9).to_bytes(4, "big")
        device.send(frames.Nack(ErrorCode.CHUNK_CORRUPT, 500, 899, 100), 1)
        assert device.chunk() == (Span(500, 900), FILE[500:900])
        stored = bytearray(FILE[:900])
        device.send(frames.Ack(len(stored)), 1)
        while len(stored) < len(FILE):
            span, data = device.chunk()
            assert span.start == len(stored)
            stored += data
            device.send(frames.Ack(len(stored)), 1)
        assert stored == FILE
        assert device.read(FrameType.FINISH) == len(FILE).to_bytes(8, "big")
        device.send(frames.Nack(ErrorCode.INCOMPLETE, 0, 9, len(FILE)), 1)
        assert device.chunk() == (Span(0, 10), FILE[:10])
        assert device.read(FrameType.FINISH) == len(FILE).to_bytes(8, "big")
        device.send(frames.Verifying(1000), 1)
        device.send(frames.Finished(1, len(FILE), crc32c(FILE)), 1)
        assert device.result() == 0


def test_the_minimal_device_learns_that_a_file_is_complete(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.COMPLETE, len(FILE))
        assert device.result() == 0


def test_the_minimal_device_goes_on_beyond_what_it_sent(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 0)
        assert [device.chunk()[0], device.chunk()[0]] == [Span(0, 400), Span(400, 800)]
        device.send(frames.Ack(2900), 1)
        assert device.chunk() == (Span(2900, 3000), FILE[2900:])


def test_the_minimal_device_counts_a_chunk_until_its_end_is_acknowledged(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 0, window_bytes=2 * CHUNK_COST_BYTES + 100)
        assert [device.chunk()[0], device.chunk()[0]] == [Span(0, 400), Span(400, 800)]
        device.send(frames.Ack(700), 1)
        assert device.chunk()[0] == Span(800, 1200)
        device.send(frames.Ping(9))
        device.read(FrameType.PONG)  # before this it would have sent what it thinks the window has room for
        device.send(frames.Ack(800), 1)
        assert device.chunk()[0] == Span(1200, 1600)


def test_the_minimal_device_sends_nothing_beyond_its_file(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 2900)
        assert device.chunk()[0] == Span(2900, 3000)
        device.read(FrameType.FINISH)
        device.send(frames.Nack(ErrorCode.CHUNK_CORRUPT, 2990, 3050, 2900), 1)
        assert device.chunk()[0] == Span(2990, 3000)


@pytest.mark.parametrize("code", [ErrorCode.FENCED, ErrorCode.DISK_FULL, ErrorCode.GONE], ids=lambda code: code.name)
def test_the_minimal_device_returns_the_action_of_an_error(minimal_device: Path, code: ErrorCode) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 0)
        device.send(frames.Error(code, code.action, 0), 1)
        assert device.result() == code.action


def test_the_minimal_device_returns_the_action_of_a_refusal(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.read(FrameType.HELLO)
        code = ErrorCode.UNAUTHENTICATED
        device.send(frames.Refused(code, code.action, 1, 1, 0))
        assert device.result() == Action.REAUTHENTICATE


def test_the_minimal_device_reopens_when_the_link_is_gone(minimal_device: Path) -> None:
    with Conversation(minimal_device) as device:
        device.greet(UploadState.RECEIVING, 0)
        device.chunk()
        device.hang_up()
        assert device.result() == Action.REOPEN
