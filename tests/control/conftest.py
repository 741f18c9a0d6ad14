"""A real server on loopback over ports in memory, and a client that holds each answer against openapi.yaml."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from yarl import URL

from control.app import Options, make_app
from control.download import Delivery, DownloadLimits
from control.listener import ControlServer, ListenAddress, serve
from tests.support.fake_ports import World
from tests.support.openapi_contract import CheckingClient


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def options() -> Options:
    """Overridden by what tests another configuration."""
    return Options(delivery=Delivery(limits=DownloadLimits(streams_max=8)))


@pytest.fixture
async def server(world: World, options: Options) -> AsyncIterator[ControlServer]:
    running = await serve(make_app(world.ports(), options), [ListenAddress("127.0.0.1", 0)], drain_timeout_s=5.0)
    yield running
    await running.close()


@pytest.fixture
def base(server: ControlServer) -> URL:
    host, port = server.addresses[0]
    return URL(f"http://{host}:{port}")


@pytest.fixture
async def client(base: URL) -> AsyncIterator[CheckingClient]:
    async with ClientSession(auto_decompress=False) as session:
        yield CheckingClient(session, base.with_path(""))
