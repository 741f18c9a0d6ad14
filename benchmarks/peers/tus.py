"""`@tus/server` with its file store: resumable uploads over HTTP, on Node.js."""

import base64
import contextlib
import http.client
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import process
from benchmarks.payload import Payload
from benchmarks.peers import http as sender
from benchmarks.peers.receiver import Receiver

PROMISE = "creation, then one PATCH answered 204; it syncs nothing, so one fdatasync of file and directory is added"

SOURCE = Path(__file__).with_name("tus") / "server.mjs"

INSTALLED = Path(__file__).parents[2] / "build" / "peers" / "tus"
"""Where `make peers` puts the packages."""

MOUNT = "/files/"

VERSION = {"Tus-Resumable": "1.0.0"}


@dataclass(frozen=True, slots=True)
class Tus(Receiver):
    """A running `@tus/server`; a file in `root` has the name given as its metadata `filename`."""

    @property
    def url(self) -> str:
        """The URL that creates an upload by POST."""
        return f"http://127.0.0.1:{self.port}{MOUNT}"

    def put_many(self, payload: Payload, names: Sequence[str]) -> float:
        """The clock starts when all uploads have been created."""
        targets = [self.create(name, payload.size_bytes) for name in names]
        headers = VERSION | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        return sender.send("PATCH", payload, self.port, targets, headers) + self.sync(names)

    def create(self, name: str, size_bytes: int) -> str:
        """Create an upload and return its path on the server. Raises process.Failed when the server refuses."""
        metadata = f"filename {base64.b64encode(name.encode()).decode()}"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            headers = VERSION | {"Upload-Length": str(size_bytes), "Upload-Metadata": metadata}
            connection.request("POST", MOUNT, headers=headers)
            answer = connection.getresponse()
            if answer.status != http.client.CREATED:
                raise process.Failed(f"tus refuses to create {name}: {answer.status} {answer.read()!r}")
            return MOUNT + answer.headers["Location"].rpartition("/")[2]

    def delete(self, name: str) -> None:
        for stored in (name, f"{name}.json"):
            (self.root / stored).unlink()


def missing() -> str | None:
    if shutil.which("node") is None:
        return "tus (no node)"
    return None if (INSTALLED / "node_modules" / "@tus" / "server").is_dir() else "tus"


@contextlib.contextmanager
def serving(directory: Path, tls: bool = False) -> Iterator[Tus]:
    """The server with its files in `directory`. Raises ValueError for TLS, which would need a proxy."""
    if tls:
        raise ValueError("@tus/server is measured without TLS: leave it out of that case")
    root, port = directory / "files", process.free_port()
    root.mkdir()
    # Node.js looks for packages next to the program's file.
    (directory / "node_modules").symlink_to(INSTALLED / "node_modules")
    program = shutil.copy(SOURCE, directory)
    with process.started(["node", str(program), str(root), str(port)], directory / "tus.log", port) as server:
        yield Tus(PROMISE, server, port, root)
