"""Devices that send small chunks to several uploads at once, as fast as the window allows: see load/greedy.c."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import native, process
from protocol.constants import CHUNK_OVERHEAD_BYTES

LOOPBACK = "127.0.0.1"

TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Greed:
    """`connections` with `streams` uploads each. Each sends `chunks` chunks in all, of `kind` sum8, compact or crc32c.

    With `again` it repeats the first chunk of each upload, without regard to the window.
    """

    connections: int
    streams: int
    chunk_bytes: int
    chunks: int
    kind: str = "compact"
    again: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent and answered, in `seconds` since the first chunk; `cpu_s` is the sender's own."""

    connects: int
    ended: int
    refused: int
    errors: int
    last_code: int
    chunks: int
    acks: int
    nacks: int
    seconds: float
    cpu_s: float


def command(greed: Greed, port: int, hellos: Path, source: str = LOOPBACK) -> list[str]:
    """The program with its options. `hellos` holds a HELLO for each device, behind its length."""
    options = {
        "port": port,
        "hello": hellos,
        "connections": greed.connections,
        "streams": greed.streams,
        "chunk": greed.chunk_bytes,
        "chunks": greed.chunks,
        "kind": greed.kind,
        "overhead": CHUNK_OVERHEAD_BYTES,
        "from": source,
    }
    words = [str(native.program("load/greedy.c", "ssl", "crypto")), *(["--again"] if greed.again else [])]
    return words + [word for name, value in options.items() for word in (f"--{name}", str(value))]


def send(greed: Greed, port: int, hellos: Path) -> Sent:
    """Send all chunks and wait until they are acknowledged. Raises process.Failed when a connection was lost."""
    output = process.run([*command(greed, port, hellos), "--until-acked"], TIMEOUT_S).splitlines()
    sent = parse(output)
    if sent.connects != greed.connections or sent.errors or sent.refused:
        raise process.Failed(f"not all chunks were acknowledged: {sent}")
    return sent


def parse(output: Sequence[str]) -> Sent:
    """The last line of the program's output."""
    return Sent(**json.loads(output[-1]))
