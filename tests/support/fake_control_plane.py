"""The real control plane over a fake daemon, with a layer in front that can misbehave."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from aiohttp import web

from control.app import Options, make_app
from control.download import Delivery, DownloadLimits
from control.listener import ListenAddress, serve
from daemon.catalog.records import Upload
from protocol.checksum import crc32c
from tests.support.fake_ports import World
from tests.support.waiting import until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeControlPlane:
    """`answers` replace the control plane's answers, in order; None keeps the real one."""

    world: World = field(default_factory=World)
    answers: deque[Answer | None] = field(default_factory=deque)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""
    progress: int = 0

    def put(self, data: bytes, name: str = "log.bin") -> Upload:
        """A complete file with `data` and its digests."""
        file = self.world.put(data, name)
        true = replace(file, crc32c=crc32c(data) if data else 0)
        self.world.files.by_id[file.id] = ("default", true)
        return true

    @web.middleware
    async def intercept(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append((request.method, request.path, request.headers.get("Range")))
        answer = self.answers.popleft() if self.answers else None
        return await (answer or handler)(request)


@asynccontextmanager
async def running() -> AsyncIterator[FakeControlPlane]:
    """A control plane that listens on loopback."""
    fake = FakeControlPlane()
    app = make_app(fake.world.ports(), Options(delivery=Delivery(limits=DownloadLimits(streams_max=8))))
    app.middlewares.insert(0, fake.intercept)
    server = await serve(app, [ListenAddress("127.0.0.1", 0)], drain_timeout_s=1.0)
    host, port = server.addresses[0]
    fake.url = f"http://{host}:{port}"
    yield fake
    await server.close()


def cut_after(fake: FakeControlPlane, data: bytes, count: int) -> Answer:
    """Send `count` of the requested bytes, and cut the link once the client has reported them as `progress`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        await response.prepare(request)
        await response.write(data[start : start + count])
        await until(lambda: not count or fake.progress == start + count)
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


def says(status: int, body: bytes) -> Answer:
    """Answer with this status and body."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    return answer
