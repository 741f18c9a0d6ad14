"""The daemon to measure, run as operators run it: a separate process, here on free ports of loopback."""

import base64
import contextlib
import os
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jwt

from benchmarks import process

PROGRAM = Path(sys.executable).parent / "uplinkd"

PROMISE = "every acknowledged byte synced to the disk and recorded in the catalog"

TOKEN_TTL_S = 3600

ASK_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Uplinkd:
    """The running daemon: where it listens, and its process."""

    server: process.Server
    data_dir: Path
    port: int
    http_port: int

    def token(self, subject: str, *scopes: str, role: str = "device") -> str:
        """A token as the daemon would issue it, signed with its HS256 secret."""
        text = (self.data_dir / "secret").read_text().strip()
        secret = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        now = int(time.time())
        claims = {
            "iss": "uplinkd",
            "aud": "uplinkd",
            "sub": subject,
            "role": role,
            "tenant": "default",
            "scope": " ".join(scopes or ("upload", "read", "delete")),
            "iat": now,
            "exp": now + TOKEN_TTL_S,
        }
        return jwt.encode(claims, secret, algorithm="HS256")

    def metric(self, name: str) -> float:
        """The value of a sample in /metrics, summed over its labels; 0 if it has none yet."""
        lines = self.ask("GET", "/metrics").decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def ask(self, method: str, path: str) -> bytes:
        """Send a request to the control plane as an operator and return the body. Raises urllib.error.HTTPError."""
        token = self.token("benchmark", role="operator")
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", method=method, headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=ASK_TIMEOUT_S) as answer:  # noqa: S310 - the URL is http, made here
            body: bytes = answer.read()
        return body


@contextlib.contextmanager
def serving(
    directory: Path, settings: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> Iterator[Uplinkd]:
    """The daemon with its data in `directory`/data, with default settings except for `settings`.

    These are environment variables without UPLINKD_, such as {"COMMIT__CYCLE_MS": "0"}. `prefix` goes in front of the
    command, such as ("taskset", "1").
    """
    data_dir, port, http_port = directory / "data", process.free_port(), process.free_port()
    chosen = {"DATA_DIR": str(data_dir), "LISTEN__PORT": str(port), "HTTP__PORT": str(http_port), **(settings or {})}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UPLINKD_")}
    environment = inherited | {f"UPLINKD_{name}": value for name, value in chosen.items()}
    command = [*prefix, str(PROGRAM), "serve"]
    # The daemon opens the devices' listener last, so this port means that it is ready.
    with process.started(command, directory / "uplinkd.log", port, environment) as server:
        yield Uplinkd(server, data_dir, port, http_port)
