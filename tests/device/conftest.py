"""A server in memory, time that the test moves, and clients of the two."""

from collections.abc import AsyncIterator, Callable

import pytest

from device.client import Uplink
from device.credentials import Credentials, TokenCredentials
from protocol.constants import Feature, FrameType
from tests.support.certificates import Certificate, make_certificate
from tests.support.fake_server import FakeServer
from tests.support.fake_time import FakeTime


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


class Uplinks:
    """Makes clients of the server. Their back-off is two fifths of its maximum, so it never equals a tick."""

    def __init__(self, server: FakeServer, time: FakeTime) -> None:
        self._server = server
        self._time = time

    def __call__(
        self,
        credentials: Credentials | None = None,
        *,
        chunk_bytes: int = 64 * 1024,
        chunk_form: FrameType = FrameType.CHUNK_CRC32C,
        features_required: Feature | None = None,
        attempts_max: int | None = None,
        deadline_s: float | None = None,
        random: Callable[[], float] = lambda: 0.4,
    ) -> Uplink:
        return Uplink(
            "127.0.0.1",
            self._server.port,
            credentials or TokenCredentials("token"),
            chunk_bytes=chunk_bytes,
            chunk_form=chunk_form,
            features_required=features_required or Feature(0),
            agent_version="1.2",
            attempts_max=attempts_max,
            deadline_s=deadline_s,
            clock=self._time.clock,
            sleep=self._time.sleep,
            random=random,
        )


@pytest.fixture
def uplinks(server: FakeServer, time: FakeTime) -> Uplinks:
    return Uplinks(server, time)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))
