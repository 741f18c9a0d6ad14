"""The sender for peers that speak HTTP: load/put.c."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import native, process
from benchmarks.payload import Payload
from benchmarks.peers.receiver import PUT_TIMEOUT_S


def send(
    method: str,
    payload: Payload,
    port: int,
    targets: Sequence[str],
    headers: Mapping[str, str] | None = None,
    authority: Path | None = None,
) -> float:
    """Send the payload to all `targets` at once, over TLS if `authority`, the CA as a PEM file, is given.

    Returns the seconds from the first byte of a request to the last answer, without connecting and TLS handshakes.
    Raises process.Failed when the server refuses a request.
    """
    command = [str(native.program("load/put.c", "ssl", "crypto")), method, str(port), str(payload.path)]
    if authority is not None:
        command += ["--authority", str(authority)]
    for name, value in (headers or {}).items():
        command += ["--header", f"{name}: {value}"]
    seconds: float = json.loads(process.run([*command, *targets], PUT_TIMEOUT_S))["seconds"]
    return seconds
