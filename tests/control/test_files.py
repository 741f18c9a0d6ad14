"""List, look up and delete."""

import asyncio
from itertools import pairwise
from urllib.parse import quote

import pytest

from control.file_json import Json, file_status
from control.files import TURN_FILES
from control.ports import Permission
from daemon.catalog.records import State, Upload
from protocol.ranges import DigestedRange
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_ports import COMPLETED_MS, World, make_file
from tests.support.openapi_contract import CheckingClient


def ids(members: dict[str, object]) -> list[object]:
    files = members["files"]
    assert isinstance(files, list)
    return [file["id"] for file in files]


async def test_pages_follow_one_another_newest_first_without_gaps_or_duplicates(
    client: CheckingClient, world: World
) -> None:
    expected = [f"{world.put(name=f'f{number}').id:016x}" for number in range(7)][::-1]
    seen: list[object] = []
    cursor, pages = "", 0
    while cursor != "&cursor=None":
        members = (await client.get(f"/v1/files?limit=3{cursor}")).json()
        seen += ids(members)
        cursor, pages = f"&cursor={members['next_cursor']}", pages + 1
    assert seen == expected
    assert pages == 3


async def test_a_long_list_lets_others_in_between(
    client: CheckingClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    made_by_turn = []

    def counted(file: Upload, expires_ms: int | None) -> dict[str, Json]:
        made.append(file.name)
        return file_status(file, expires_ms)

    async def watch() -> None:
        while len(made) < 10 * TURN_FILES:
            await asyncio.sleep(0)
            made_by_turn.append(len(made))

    monkeypatch.setattr("control.files.file_status", counted)
    for number in range(10 * TURN_FILES):
        world.put(name=f"f{number}")
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        answer = await client.get(f"/v1/files?limit={10 * TURN_FILES}")
    assert len(ids(answer.json())) == 10 * TURN_FILES
    assert max(after - before for before, after in pairwise([0, *made_by_turn])) == TURN_FILES


async def test_every_filter_reaches_the_catalog_and_they_add_up(client: CheckingClient, world: World) -> None:
    wanted = world.put(name="logs/a", device="cam-2")
    world.put(name="logs/b", device="cam-1")
    world.put(name="other", device="cam-2")
    world.alter(world.put(name="logs/c", device="cam-2"), state=State.REJECTED)
    world.alter(world.put(name="logs/d", device="cam-2"), updated_ms=COMPLETED_MS + 1)
    world.alter(world.put(name="logs/e", device="cam-2"), updated_ms=COMPLETED_MS - 1)
    answer = await client.get(
        "/v1/files?device=cam-2&state=complete&state=partial&prefix=logs%2F"
        "&updated_from=2026-01-01T01:00:00%2B01:00&updated_to=2026-01-01T00:00:00Z"
    )
    assert ids(answer.json()) == [f"{wanted.id:016x}"]


async def test_a_device_lists_its_own_files_alone(client: CheckingClient, world: World) -> None:
    mine = world.put(device="cam-1")
    world.put(device="cam-2")
    assert ids((await client.get("/v1/files", token="cam-1")).json()) == [f"{mine.id:016x}"]
    assert ids((await client.get("/v1/files?device=cam-1", token="cam-1")).json()) == [f"{mine.id:016x}"]
    assert ids((await client.get("/v1/files?device=cam-2", token="cam-1")).json()) == []
    assert [query.device for query in world.files.queries] == ["cam-1", "cam-1"]


async def test_an_operator_sees_its_tenant_alone(client: CheckingClient, world: World) -> None:
    file = world.put(tenant="default")
    assert ids((await client.get("/v1/files", token="stranger")).json()) == []
    assert (await client.get(f"/v1/files/{file.id:016x}", token="stranger")).status == 404
    assert (await client.get("/v1/devices/cam-1/files/log.bin", token="stranger")).status == 404
    assert (await client.request("DELETE", f"/v1/files/{file.id:016x}", token="stranger")).status == 404
    assert world.uploads.deleted == []


async def test_status_by_id_and_by_name_are_the_same(client: CheckingClient, world: World) -> None:
    file = world.put(b"0123456789")
    by_id = (await client.get(f"/v1/files/{file.id:016x}")).json()
    by_name = (await client.get("/v1/devices/cam-1/files/log.bin", token="cam-1")).json()
    assert by_id == by_name
    assert by_id["id"] == f"{file.id:016x}"


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c",
        "../../etc/passwd",
        "a%2Fb",
        "100%",
        "sp ace+plus",
        "{braces}",
        "ünï/çödé €",
        "x/content",
        "?q#f",
        "...",
        "a&b=c;d",
    ],
)
async def test_any_name_is_found_percent_encoded(client: CheckingClient, world: World, name: str) -> None:
    world.put(b"the bytes", name=name)
    path = f"/v1/devices/cam-1/files/{quote(name, safe='')}"
    assert (await client.get(path)).json()["name"] == name
    assert (await client.get(f"{path}/content")).body == b"the bytes"


async def test_a_name_that_is_not_utf8_is_refused(client: CheckingClient) -> None:
    answer = await client.get("/v1/devices/cam-1/files/%FF%FE")
    assert (answer.status, answer.name) == (400, "REQUEST_INVALID")


async def test_a_device_cannot_tell_anothers_file_from_none(client: CheckingClient, world: World) -> None:
    theirs = world.put(b"secret", device="cam-2")
    for method, path in [
        ("GET", "/v1/files/{}"),
        ("GET", "/v1/files/{}/content"),
        ("DELETE", "/v1/files/{}"),
    ]:
        there = await client.request(method, path.format(f"{theirs.id:016x}"), token="cam-1")
        absent = await client.request(method, path.format(f"{0x7777:016x}"), token="cam-1")
        assert there.status == absent.status == 404
        differing = {"instance", "request_id"}
        assert {k: v for k, v in there.json().items() if k not in differing} == {
            k: v for k, v in absent.json().items() if k not in differing
        }
    for tail in ["", "/content"]:
        assert (await client.get(f"/v1/devices/cam-2/files/log.bin{tail}", token="cam-1")).status == 404
    assert world.uploads.deleted == []


@pytest.mark.parametrize(
    "bad", ["0" * 16, "8000000000000000", "abc", "000000000000ABCD", "zzzzzzzzzzzzzzzz", "\uff11" * 16]
)
async def test_what_is_no_id_names_no_file(client: CheckingClient, bad: str) -> None:
    answer = await client.get(f"/v1/files/{quote(bad)}")
    assert (answer.status, answer.name) == (404, "RESOURCE_UNKNOWN")


async def test_delete_removes_once_and_says_gone_afterwards(client: CheckingClient, world: World) -> None:
    file = world.put(b"x")
    path = f"/v1/files/{file.id:016x}"
    answer = await client.request("DELETE", path, token="operator")
    assert (answer.status, answer.body) == (204, b"")
    assert world.uploads.deleted == [("default", file.id, world.authenticator.principals["operator"])]
    again = await client.request("DELETE", path, token="operator")
    assert (again.status, again.name) == (410, "GONE")
    assert (await client.get(path)).json()["state"] == "deleted"
    content = await client.get(f"{path}/content")
    assert (content.status, content.name) == (410, "GONE")


async def test_a_device_deletes_its_own_and_cancels_its_own_upload(client: CheckingClient, world: World) -> None:
    file = world.alter(world.put(b"x"), state=State.RECEIVING)
    assert (await client.request("DELETE", f"/v1/files/{file.id:016x}", token="cam-1")).status == 204


async def test_reading_does_not_permit_deleting(client: CheckingClient, world: World) -> None:
    file = world.put(b"x")
    answer = await client.request("DELETE", f"/v1/files/{file.id:016x}", token="reader")
    assert (answer.status, answer.name) == (403, "FORBIDDEN")
    world.admit("deleter", Permission.DELETE)
    assert (await client.get("/v1/files", token="deleter")).status == 403


async def test_status_of_an_upload_under_way(client: CheckingClient, world: World) -> None:
    ranges = (DigestedRange(0, 4, 0), DigestedRange(6, 8, 0))
    file = make_file(state=State.RECEIVING, size=None, ranges=ranges, crc32c=None, sha256=None, completed_ms=None)
    world.files.by_id[file.id] = ("default", file)
    world.files.expiry_ms[file.id] = 86_400_000
    members = (await client.get(f"/v1/files/{file.id:016x}")).json()
    assert (members["size"], members["next_expected_byte"]) == (None, 4)
    assert members["ranges"] == [{"start": 0, "end": 4}, {"start": 6, "end": 8}]
    assert members["expires"] == "1970-01-02T00:00:00.000Z"
