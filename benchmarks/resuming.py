"""The devices of the benchmark `lossy`: each sends one file and resumes where it was cut off.

`python -m benchmarks.resuming uplinkd PORT TOKEN FILE NAME` and `... tus PORT PATH FILE`. They print a JSON object:
`seconds` from the first connect until the server has confirmed the whole file, `sent_bytes` handed to the kernel, and
two lists with one entry per cut: `resent_bytes`, sent again because of it, and `in_flight_bytes`, not acknowledged when
it came.
"""

import asyncio
import contextlib
import http.client
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from pathlib import Path

from device.client import Uplink
from device.credentials import TokenCredentials
from device.report import UploadProgress

HOST = "127.0.0.1"

BLOCK_BYTES = 16 * 1024
"""How much the tus client hands to the kernel at a time."""

ANSWER_TIMEOUT_S = 60

TUS_HEADERS = {"Tus-Resumable": "1.0.0"}


@dataclass(slots=True)
class Report:
    """The figures of one upload."""

    seconds: float = 0.0
    sent_bytes: int = 0
    resent_bytes: list[int] = field(default_factory=list)
    in_flight_bytes: list[int] = field(default_factory=list)
    _next_byte: int = -1
    _acknowledged_bytes: int = 0

    def connected(self, have_bytes: int) -> None:
        """A connection resumes at `have_bytes`; whatever was sent beyond that is lost."""
        if self._next_byte >= 0:
            self.resent_bytes.append(self._next_byte - have_bytes)
            self.in_flight_bytes.append(self._next_byte - self._acknowledged_bytes)
        self._next_byte = self._acknowledged_bytes = have_bytes

    def acknowledged(self, durable_bytes: int) -> None:
        """The server has acknowledged `durable_bytes`."""
        self._acknowledged_bytes = durable_bytes

    def sent(self, count: int) -> None:
        self.sent_bytes += count
        self._next_byte += count


async def uplinkd(port: int, token: str, source: BufferedReader, name: str) -> Report:
    """Upload with the project's own client library at its defaults, as `uplink send` does."""
    report = Report()
    resumes = -1

    def progressed(progress: UploadProgress) -> None:
        nonlocal resumes
        report.sent(progress.sent_bytes - report.sent_bytes)
        if progress.resumes > resumes:
            resumes = progress.resumes
            report.connected(progress.durable_bytes)
        report.acknowledged(progress.durable_bytes)

    began = time.perf_counter()
    async with Uplink(HOST, port, TokenCredentials(token)) as uplink:
        await uplink.send(source, name, on_progress=progressed)
        report.seconds = time.perf_counter() - began
    return report


def tus(port: int, path: str, file: Path) -> Report:
    """Resume an existing upload by the tus 1.0.0 core protocol: HEAD returns the offset, PATCH continues there."""
    report = Report()
    content = memoryview(file.read_bytes())
    began = time.perf_counter()
    while not report.seconds:
        connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT_S)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            have = _offset(connection, path)
            report.connected(have)
            if have == len(content) or _patch(connection, path, content, have, report):
                report.seconds = time.perf_counter() - began
    return report


def _offset(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("HEAD", path, headers=TUS_HEADERS)
    with connection.getresponse() as answer:
        answer.read()
        return int(answer.headers["Upload-Offset"])


def _patch(connection: http.client.HTTPConnection, path: str, content: memoryview, have: int, report: Report) -> bool:
    connection.putrequest("PATCH", path)
    headers = TUS_HEADERS | {
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(len(content) - have),
        "Upload-Offset": str(have),
    }
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    for start in range(have, len(content), BLOCK_BYTES):
        block = content[start : start + BLOCK_BYTES]
        connection.send(block)
        report.sent(len(block))
    return connection.getresponse().status == http.client.NO_CONTENT


def main(kind: str, port: str, *rest: str) -> None:
    match kind, rest:
        case "uplinkd", (token, file, name):
            with Path(file).open("rb") as source:
                report = asyncio.run(uplinkd(int(port), token, source, name))
        case "tus", (path, file):
            report = tus(int(port), path, Path(file))
        case _:
            sys.exit(__doc__)
    print(json.dumps({name: value for name, value in asdict(report).items() if not name.startswith("_")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
