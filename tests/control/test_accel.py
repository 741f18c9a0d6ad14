"""Downloads that the reverse proxy sends: when the daemon leaves them to it, and what it says of the file."""

import pytest
from aiohttp import ClientSession
from yarl import URL

from control.app import Options
from control.download import Delivery
from daemon.catalog.records import State, Upload
from tests.support.fake_ports import World
from tests.support.openapi_contract import Answer, CheckingClient

DATA = bytes(range(256)) * 40
BY_NGINX = {"X-Sendfile-Type": "X-Accel-Redirect"}


@pytest.fixture
def options() -> Options:
    return Options(delivery=Delivery(accel_prefix="/internal/files/"))


@pytest.fixture
def file(world: World) -> Upload:
    return world.alter(world.put(DATA), content_type="text/plain")


async def get(base: URL, file: Upload, method: str = "GET", **headers: str) -> Answer:
    """What nginx gets; a client sees it only with what nginx adds, so it is not held to the description."""
    fields = BY_NGINX | {name.replace("_", "-"): value for name, value in headers.items()}
    fields["Authorization"] = "Bearer operator"
    url = base.with_path(f"/v1/files/{file.id:016x}/content")
    async with ClientSession() as session, session.request(method, url, headers=fields) as response:
        return Answer(response.status, response.headers, await response.read())


@pytest.mark.parametrize(
    "headers", [{}, {"Range": "bytes=5-9"}, {"Range": "bytes=5-9,5000-"}], ids=["whole", "range", "ranges"]
)
async def test_the_proxy_gets_the_place_and_what_describes_the_file(
    base: URL, client: CheckingClient, world: World, file: Upload, headers: dict[str, str]
) -> None:
    answer = await get(base, file, **headers)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["X-Accel-Redirect"] == f"/internal/files/shard/{file.id:016x}"
    assert answer.headers["Content-Type"] == "text/plain"
    described = (await client.get(f"/v1/files/{file.id:016x}/content")).headers
    for name in ("ETag", "Last-Modified", "Content-Disposition", "Cache-Control", "Repr-Digest"):
        assert answer.headers[name] == described[name]
    assert "Accept-Ranges" not in answer.headers
    assert [exchange.sent_bytes for exchange in world.log.exchanges] == [0, len(DATA)]


async def test_head_names_the_place_too(base: URL, file: Upload) -> None:
    assert "X-Accel-Redirect" in (await get(base, file, "HEAD")).headers


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        pytest.param("GET", {"X-Sendfile-Type": ""}, id="the proxy does not offer it"),
        pytest.param("GET", {"X-Sendfile-Type": "X-Sendfile"}, id="the proxy is another"),
        pytest.param("GET", {"If-Match": "*"}, id="nginx would compare another ETag"),
        pytest.param("GET", {"If-Unmodified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, id="or another date"),
        pytest.param("GET", {"Range": "bytes=5-", "If-Range": '"another"'}, id="nginx would send a range"),
        pytest.param("GET", {"Range": "bytes=9-5"}, id="nginx would refuse the range"),
        pytest.param("HEAD", {"Range": "bytes=5-9"}, id="nginx would answer HEAD with a range"),
    ],
)
async def test_what_nginx_would_answer_otherwise_the_daemon_sends(
    base: URL, file: Upload, method: str, headers: dict[str, str]
) -> None:
    answer = await get(base, file, method, **headers)
    assert answer.status == 200
    assert "X-Accel-Redirect" not in answer.headers
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.body == (DATA if method == "GET" else b"")


async def test_a_resume_of_the_same_file_is_the_proxys(base: URL, file: Upload) -> None:
    etag = (await get(base, file)).headers["ETag"]
    assert "X-Accel-Redirect" in (await get(base, file, Range="bytes=5-", If_Range=etag)).headers


async def test_conditions_and_refusals_stay_the_daemons(base: URL, world: World, file: Upload) -> None:
    etag = (await get(base, file)).headers["ETag"]
    assert (await get(base, file, If_None_Match=etag)).status == 304
    assert (await get(base, file, If_Match='"another"')).status == 412
    assert (await get(base, file, Range="bytes=99999-")).status == 416
    world.alter(file, state=State.DELETED)
    gone = await get(base, file)
    assert gone.status == 410
    assert "X-Accel-Redirect" not in gone.headers


async def test_an_empty_file_is_answered_at_once(base: URL, world: World) -> None:
    answer = await get(base, world.put(b""))
    assert (answer.status, "X-Accel-Redirect" in answer.headers) == (200, False)


class TestDirect:
    """The default: the daemon sends, whatever the proxy offers."""

    @pytest.fixture
    def options(self) -> Options:
        return Options()

    async def test_the_daemon_sends(self, base: URL, file: Upload) -> None:
        answer = await get(base, file)
        assert answer.body == DATA
        assert "X-Accel-Redirect" not in answer.headers
