"""A bare aiohttp FileResponse: the speed of the control plane's framework alone.

python -m benchmarks.peers.file_response PORT FILE
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import uvloop
from aiohttp import web

from benchmarks import process


@contextlib.contextmanager
def serving(directory: Path, file: Path) -> Iterator[tuple[process.Server, int]]:
    """A process that serves `file` under any path, and its port on loopback."""
    port = process.free_port()
    command = [sys.executable, "-m", "benchmarks.peers.file_response", str(port), str(file)]
    with process.started(command, directory / "file_response.log", port) as server:
        yield server, port


async def application(file: Path) -> web.Application:
    async def send(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(file)

    app = web.Application()
    app.router.add_get("/{path:.*}", send)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(application(Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
