"""A range asked for again on the same connection: answered as before, and only while everything is as before."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from yarl import URL

from control import listener as server_module
from control.ports import File, Principal, Role, Scope
from tests.support.fake_ports import World
from tests.support.openapi_contract import CheckingClient
from tests.support.waiting import until

DATA = bytes(range(251)) * 4000
VARYING = {b"content-length", b"content-range", b"x-request-id", b"date"}


class Connection:
    """One connection on which requests are sent byte by byte as the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, *parts: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send a request, each part in a packet of its own; status, fields and body."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            # Server and client share the event loop: after a few turns of it the server has read this part.
            for _ in range(5):
                await asyncio.sleep(0)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = head.rstrip().split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines)
        assert len(fields) == len(lines), "no field comes twice"
        lower = {name.lower(): value for name, value in fields.items()}
        return int(status.split()[1]), lower, await self.reader.readexactly(int(lower[b"content-length"]))


@pytest.fixture
async def connection(base: URL) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(base.host, base.port, limit=1 << 20)
    yield Connection(reader, writer)
    writer.close()
    await writer.wait_closed()


@pytest.fixture
def file(world: World) -> File:
    stored = world.put(DATA)
    world.contents.cached.add(stored.id)
    return stored


def request(file: File, span: str, fields: str = "", token: str = "operator") -> bytes:
    head = f"GET /v1/files/{file.id:016x}/content HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}{fields}Range: bytes={span}\r\n\r\n".encode()


async def test_the_second_answer_is_the_first_but_for_its_range(
    connection: Connection, file: File, world: World
) -> None:
    first = await connection.ask(request(file, "0-9"))
    second = await connection.ask(request(file, "100000-165535"))
    assert (second[0], second[2]) == (206, DATA[100_000:165_536])
    assert second[1][b"content-range"] == f"bytes 100000-165535/{len(DATA)}".encode()
    assert {k: v for k, v in second[1].items() if k not in VARYING} == {
        k: v for k, v in first[1].items() if k not in VARYING
    }
    assert first[1].keys() == second[1].keys()
    assert (world.contents.reads, world.contents.cached_reads) == ([(0, 10)], [(100_000, 65_536)])


async def test_each_repetition_is_counted_and_has_an_id_and_all_are_logged_once(
    connection: Connection, file: File, world: World
) -> None:
    ids = [(await connection.ask(request(file, f"{n}-{n + 9}")))[1][b"x-request-id"] for n in range(4)]
    assert ids == [b"req-000001", b"req-000001.1", b"req-000001.2", b"req-000001.3"]
    assert [(it.status, it.sent_bytes, it.subject) for it in world.http_metrics.seen] == [(206, 10, "operator")] * 4
    connection.writer.close()
    await until(lambda: len(world.log.exchanges) == 2)
    told = world.log.exchanges[1]
    assert (told.request_id, told.repeats, told.sent_bytes) == ("req-000001", 3, 30)
    assert told.route == "/v1/files/{id}/content"


async def test_a_clients_own_id_stays_its_own(connection: Connection, file: File) -> None:
    for _ in range(2):
        answer = await connection.ask(request(file, "0-9", "X-Request-Id: mine\r\n"))
        assert answer[1][b"x-request-id"] == b"mine"


@pytest.mark.parametrize(
    ("span", "status"),
    [
        *(("9-5", 200), ("x-1", 200), ("5-", 206), ("-5", 206), ("1-2,9-9", 206), (f"0-{len(DATA)}", 206)),
        *(("0-99999999999999999999", 206), ("0-262144", 206), (f"{len(DATA)}-{len(DATA)}", 416)),
    ],
)
async def test_any_other_range_goes_the_usual_way(
    connection: Connection, file: File, world: World, span: str, status: int
) -> None:
    await connection.ask(request(file, "0-9"))
    assert (await connection.ask(request(file, span)))[0] == status
    assert world.contents.cached_reads == []


async def test_other_fields_go_the_usual_way(connection: Connection, file: File, world: World) -> None:
    await connection.ask(request(file, "0-9"))
    assert (await connection.ask(request(file, "0-9", 'If-Match: "other"\r\n')))[0] == 412
    assert (await connection.ask(request(file, "0-9", token="nobody")))[0] == 401
    assert world.contents.cached_reads == []


async def test_a_condition_that_held_is_repeated_with_the_request(
    connection: Connection, file: File, world: World
) -> None:
    etag = (await connection.ask(request(file, "0-9")))[1][b"etag"].decode()
    for _ in range(2):
        assert (await connection.ask(request(file, "5-6", f"If-Range: {etag}\r\n")))[0] == 206
    assert len(world.contents.cached_reads) == 1


def revoke(world: World, file: File) -> None:
    del world.authenticator.principals["operator"]


def hand_over(world: World, file: File) -> None:
    world.authenticator.principals["operator"] = Principal("elsewhere", "operator", Role.OPERATOR, frozenset({"read"}))


def narrow(world: World, file: File) -> None:
    world.admit("operator", Role.OPERATOR, Scope.DELETE)


def delete(world: World, file: File) -> None:
    del world.contents.data[file.id]


@pytest.mark.parametrize(("change", "status"), [(revoke, 401), (hand_over, 404), (narrow, 403), (delete, 410)])
async def test_what_has_changed_meanwhile_is_seen_at_once(
    connection: Connection, file: File, world: World, change: Callable[[World, File], None], status: int
) -> None:
    await connection.ask(request(file, "0-9"))
    assert (await connection.ask(request(file, "0-9")))[0] == 206
    change(world, file)
    assert (await connection.ask(request(file, "0-9")))[0] == status


async def test_bytes_that_are_not_in_memory_are_read_the_usual_way(
    connection: Connection, file: File, world: World
) -> None:
    world.contents.cached.clear()
    for _ in range(3):
        assert (await connection.ask(request(file, "3-5")))[2] == DATA[3:6]
    assert world.contents.reads == [(3, 3)] * 3


async def test_after_a_while_a_request_goes_the_usual_way_again(
    connection: Connection, file: File, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REPLAY_S", 0.0)
    await connection.ask(request(file, "0-9"))
    await connection.ask(request(file, "0-9"))
    assert world.contents.reads == [(0, 10)] * 2


async def test_a_name_may_come_to_stand_for_another_file(connection: Connection, file: File, world: World) -> None:
    named = request(file, "0-9").replace(f"files/{file.id:016x}".encode(), b"devices/cam-1/files/log.bin")
    for _ in range(2):
        assert (await connection.ask(named))[0] == 206
    assert len(world.contents.reads) == 2


async def test_the_end_of_a_request_is_no_request(connection: Connection, file: File, world: World) -> None:
    whole = request(file, "0-9")
    assert (await connection.ask(b"GET /healthz HTTP/1.1\r\nX-Begun: ", whole))[0] == 200
    assert (await connection.ask(whole))[0] == 206
    assert (await connection.ask(b"GET /healthz HTTP/1.1\r\nX-Begun: ", whole))[0] == 200
    assert world.contents.cached_reads == []


async def test_a_body_that_looks_like_a_request_is_a_body(connection: Connection, file: File, world: World) -> None:
    whole = request(file, "0-9")
    await connection.ask(whole)
    head = b"POST /v1/token HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(whole)
    assert (await connection.ask(head, whole))[0] == 400
    assert world.contents.cached_reads == []


async def test_requests_sent_ahead_are_answered_in_order(connection: Connection, file: File) -> None:
    await connection.ask(request(file, "0-9"))
    connection.writer.write(b"".join(request(file, f"{n}-{n + 99}") for n in range(50)))
    bodies = [(await connection.answer())[2] for _ in range(50)]
    assert bodies == [DATA[n : n + 100] for n in range(50)]


async def test_a_client_that_does_not_take_its_answers_gets_no_more_into_memory(
    connection: Connection, file: File, world: World
) -> None:
    await connection.ask(request(file, "0-9"))
    for _ in range(200):
        connection.writer.write(request(file, "0-262143"))
        await connection.writer.drain()
        # Each in a packet of its own, since several in one go the usual way whoever takes what.
        for _ in range(5):
            await asyncio.sleep(0)
    assert len(world.contents.cached_reads) < 100
    assert [(await connection.answer())[2] for _ in range(200)] == [DATA[:262_144]] * 200


async def test_clients_see_no_difference(client: CheckingClient, file: File, world: World) -> None:
    for start in range(0, 500_000, 50_000):
        answer = await client.get(
            f"/v1/files/{file.id:016x}/content", headers={"Range": f"bytes={start}-{start + 9_999}"}
        )
        assert (answer.status, answer.body) == (206, DATA[start : start + 10_000])
    assert len(world.contents.cached_reads) == 9


async def test_a_request_that_comes_before_an_earlier_one_is_answered_waits_its_turn(
    connection: Connection, file: File, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = asyncio.Event()
    read = world.contents.read

    async def held(file_id: int, offset: int, count: int) -> bytes:
        await let_go.wait()
        return await read(file_id, offset, count)

    monkeypatch.setattr(world.contents, "read", held)
    starts = range(0, 90, 10)
    for start in starts:
        connection.writer.write(request(file, f"{start}-{start + 9}"))
        await connection.writer.drain()
        for _ in range(5):
            await asyncio.sleep(0)
        if start == 10:
            let_go.set()
    assert [(await connection.answer())[2] for _ in starts] == [DATA[start : start + 10] for start in starts]
