"""Health, cleanup, and the description itself."""

import json

from control.operations import OPENAPI
from tests.support.fake_ports import FakeFault, World
from tests.support.openapi_contract import CheckingClient


async def test_alive(client: CheckingClient, world: World) -> None:
    world.health.found = [FakeFault("disk", "full")]
    assert (await client.get("/healthz", token=None)).json() == {"status": "ok"}
    assert (await client.request("HEAD", "/healthz")).status == 200


async def test_ready_when_nothing_is_wrong(client: CheckingClient) -> None:
    assert (await client.get("/readyz", token=None)).json() == {"status": "ready"}


async def test_not_ready_says_which_part_and_why(client: CheckingClient, world: World) -> None:
    world.health.found = [FakeFault("disk", "12 MiB free, 256 MiB are kept free"), FakeFault("committer", "stuck")]
    answer = await client.get("/readyz", token=None)
    assert (answer.status, answer.name) == (503, "UNAVAILABLE")
    assert answer.json()["problems"] == [
        {"component": "disk", "detail": "12 MiB free, 256 MiB are kept free"},
        {"component": "committer", "detail": "stuck"},
    ]
    assert (await client.request("HEAD", "/readyz")).status == 503


async def test_cleanup_runs_and_reports(client: CheckingClient, world: World) -> None:
    answer = await client.post("/v1/cleanup", {"dry_run": True}, token="operator")
    assert answer.json() == {
        "dry_run": True,
        "stale_deleted": 3,
        "stale_kept": 0,
        "retention_expired": 2,
        "rejected_deleted": 1,
        "tombstones_purged": 5,
        "orphans_quarantined": 0,
        "freed_bytes": 4096,
        "stopped": None,
    }
    assert (await client.request("POST", "/v1/cleanup", token="operator")).status == 200
    assert world.cleaner.runs == [True, False]


async def test_cleanup_takes_no_guess_for_a_flag(client: CheckingClient, world: World) -> None:
    for members in [{"dry_run": "yes"}, {"dry_run": 1}, {"dryrun": True}, {"dry_run": None}]:
        assert (await client.post("/v1/cleanup", members, token="operator")).status == 400
    assert world.cleaner.runs == []


async def test_a_second_cleanup_is_a_conflict(client: CheckingClient, world: World) -> None:
    world.cleaner.busy = True
    answer = await client.post("/v1/cleanup", {}, token="operator")
    assert (answer.status, answer.name) == (409, "CONFLICT")
    assert json.dumps(world.cleaner.runs) == "[]"


async def test_the_description_is_served_as_it_was_written(client: CheckingClient) -> None:
    answer = await client.get("/v1/openapi.yaml", token=None)
    assert answer.body == OPENAPI.read_bytes()
