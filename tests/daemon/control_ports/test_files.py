"""Files and their bytes on a real core, as control/ports.py promises them."""

from contextlib import aclosing
from dataclasses import replace
from socket import socketpair

import pytest

from control.ports import (
    Ports,
)
from daemon.catalog.records import ListQuery, Page, State
from tests.support.catalog_samples import DEVICE, TENANT
from tests.support.fake_machine import NOW_MS
from tests.support.populated_store import CONTENT
from tests.support.refusals import BOSS, OTHER, refusal
from tests.support.running_core import Running, failing


class TestFiles:
    async def test_a_file_is_the_catalogs_record(self, running: Running, ports: Ports) -> None:
        upload = await running.keeping.add(1, NOW_MS, State.COMPLETE)
        assert await ports.files.get(TENANT, 1) == upload

    @pytest.mark.parametrize(
        ("state", "setting", "expires_ms"),
        [
            (State.RECEIVING, {"stale_s": 60}, NOW_MS + 60_000),
            (State.REJECTED, {"rejected_s": 30}, NOW_MS + 30_000),
            (State.COMPLETE, {"retention_s": 90}, NOW_MS + 90_000),
            (State.COMPLETE, {}, None),
            (State.PARTIAL, {"stale_s": 60}, NOW_MS + 60_000),
            (State.PARTIAL, {"keeps_stale": True}, None),
            (State.DELETED, {}, None),
        ],
    )
    async def test_when_it_expires(
        self, running: Running, ports: Ports, state: State, setting: dict[str, float], expires_ms: int | None
    ) -> None:
        cleanup = running.core.cleanup
        expiry = replace(cleanup.policy.expiry, **setting)  # type: ignore[arg-type]  # each value fits the field it names
        cleanup.policy = replace(cleanup.policy, expiry=expiry)
        await running.keeping.add(1, NOW_MS, state)
        file = await ports.files.get(TENANT, 1)
        assert file is not None
        assert (file.state, ports.files.expires_ms(file)) == (state, expires_ms)

    async def test_a_file_of_another_tenant_is_none(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS)
        assert await ports.files.get(OTHER, 1) is None
        assert await ports.files.find(OTHER, DEVICE, "file-1") is None
        assert await ports.files.list(ListQuery(OTHER, 10)) == Page((), None)
        assert await ports.files.get(TENANT, 2) is None

    async def test_a_name_is_found(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS)
        file = await ports.files.find(TENANT, DEVICE, "file-1")
        assert file is not None
        assert file.id == 1
        assert await ports.files.find(TENANT, DEVICE, "file-2") is None
        assert await ports.files.find(TENANT, "another", "file-1") is None

    async def test_pages_follow_each_other_newest_first(self, running: Running, ports: Ports) -> None:
        for number in range(1, 6):
            await running.keeping.add(number, NOW_MS + number // 2)
        seen, after = [], None
        while True:
            page = await ports.files.list(ListQuery(TENANT, 2, after=after))
            seen.append([file.id for file in page.uploads])
            if page.next is None:
                break
            after = page.next
        assert [each for page_ in seen for each in page_] == [5, 4, 3, 2, 1]
        assert max(map(len, seen)) == 2

    async def test_filters_reach_the_catalog(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        await running.keeping.add(2, NOW_MS + 10)

        async def listed(**filters: object) -> list[int]:
            query = replace(ListQuery(TENANT, 10), **filters)  # type: ignore[arg-type]  # each value fits the field it names
            return [file.id for file in (await ports.files.list(query)).uploads]

        assert await listed() == [2, 1]
        assert await listed(states=frozenset({State.COMPLETE})) == [1]
        assert await listed(name_prefix="file-2") == [2]
        assert await listed(device="another") == []
        assert await listed(updated_from_ms=NOW_MS + 1) == [2]
        assert await listed(updated_to_ms=NOW_MS + 1) == [1]

    async def test_the_catalog_does_not_answer(self, running: Running, ports: Ports) -> None:
        running.core.catalog = failing()
        for work in (
            ports.files.list(ListQuery(TENANT, 1)),
            ports.files.get(TENANT, 1),
            ports.files.find(TENANT, DEVICE, "x"),
        ):
            assert await refusal(work) == (503, "UNAVAILABLE")


class TestContents:
    async def test_a_file_is_read(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        content = await ports.contents.open(1)
        assert await content.read(2, 3) == CONTENT[2:5]
        assert await content.read(8, 100) == CONTENT[8:]
        await content.close()

    async def test_where_the_bytes_lie(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        assert running.keeping.path(1) == running.core.settings.data_dir / "files" / ports.contents.path(1)

    async def test_a_file_is_sent_to_a_socket(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        content = await ports.contents.open(1)
        ours, theirs = socketpair()
        with ours, theirs:
            async with aclosing(content.send(ours.fileno(), 2, 5)) as steps:
                assert [step async for step in steps] == [5]
            assert theirs.recv(100) == CONTENT[2:7]
        await content.close()

    async def test_a_deleted_file_is_opened_no_more(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        content = await ports.contents.open(1)
        await ports.uploads.delete(TENANT, 1, BOSS)
        assert await refusal(ports.contents.open(1)) == (410, "GONE")
        assert await content.read(0, 3) == CONTENT[:3], "who has it open reads on"
        await content.close()

    @pytest.mark.parametrize("state", [State.COMPLETE, State.DELETED])
    async def test_bytes_that_are_gone(self, running: Running, ports: Ports, state: State) -> None:
        await running.keeping.add(1, NOW_MS, state)
        running.keeping.path(1).unlink()
        assert await refusal(ports.contents.open(1)) == (410, "GONE")

    async def test_a_file_that_never_was(self, ports: Ports) -> None:
        assert await refusal(ports.contents.open(1)) == (410, "GONE")
