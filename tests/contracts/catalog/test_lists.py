"""Lists are complete, ordered, and made of pages. SQLite's own tests have every combination of filters."""

from dataclasses import replace

import pytest

from daemon.catalog.interface import Catalog
from daemon.catalog.records import ListQuery, Page, Position, State, Upload
from tests.support.catalog_samples import DEVICE, TENANT, bring_to, create

ALL = 30


@pytest.fixture
async def uploads(catalog: Catalog) -> list[Upload]:
    """ALL uploads of two tenants, two devices and all states, newest first."""
    for number in range(1, ALL + 1):
        owner = {"tenant": TENANT if number % 5 else "acme", "device": "pump-8" if number % 2 else DEVICE}
        await create(catalog, number, f"{number % 3}/{number}", now_ms=1_000 + number // 3, **owner)
        await bring_to(catalog, number, list(State)[number % 7], 1_050 + number)
    kept = [await catalog.get(number) for number in range(1, ALL + 1)]
    return sorted((each for each in kept if each), key=lambda each: (each.created_ms, each.id), reverse=True)


async def pages(catalog: Catalog, query: ListQuery) -> list[Page]:
    found = [await catalog.list(query)]
    while (after := found[-1].next) is not None:
        found.append(await catalog.list(replace(query, after=after)))
    return found


@pytest.mark.parametrize(
    "query",
    [
        ListQuery(TENANT, 4),
        ListQuery(TENANT, ALL),
        ListQuery("nobody", 4),
        ListQuery(TENANT, 4, device=DEVICE),
        ListQuery(TENANT, 4, states=frozenset({State.COMPLETE, State.RECEIVING})),
        ListQuery(TENANT, 4, name_prefix="1/"),
        ListQuery(TENANT, 4, updated_from_ms=1_060, updated_to_ms=1_070),
    ],
)
async def test_the_pages_of_a_query_hold_what_it_asks_for_newest_first(
    catalog: Catalog, uploads: list[Upload], query: ListQuery
) -> None:
    found = await pages(catalog, query)
    assert all(len(page.uploads) <= query.limit for page in found)
    assert [each for page in found for each in page.uploads] == [each for each in uploads if passes(each, query)]


def passes(upload: Upload, query: ListQuery) -> bool:
    return (
        upload.tenant == query.tenant
        and query.device in {None, upload.device}
        and (not query.states or upload.state in query.states)
        and upload.name.startswith(query.name_prefix or "")
        and (query.updated_from_ms or 0) <= upload.updated_ms <= (query.updated_to_ms or 1 << 60)
    )


async def test_older_uploads_of_a_state_come_oldest_first_in_pages(catalog: Catalog, uploads: list[Upload]) -> None:
    ordered = sorted(uploads, key=lambda each: (each.updated_ms, each.id))
    for state in State:
        expected = [each for each in ordered if each.state is state and each.updated_ms < 1_075]
        found: list[Upload] = []
        after: Position | None = None
        while some := await catalog.older(state, 1_075, 2, after):
            found += some
            after = Position(some[-1].updated_ms, some[-1].id)
        assert found == expected


async def test_receiving_uploads_come_by_id_in_pages(catalog: Catalog, uploads: list[Upload]) -> None:
    expected = sorted(each.id for each in uploads if each.state is State.RECEIVING)
    found: list[int] = []
    while some := await catalog.receiving(found[-1] if found else 0, 2):
        found += [each.id for each in some]
    assert found == expected
