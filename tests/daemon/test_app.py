"""What the control plane is given, on a real engine: each port as control/ports.py promises it."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from socket import socketpair

import pytest

from control.errors import Problems
from control.ports import (
    Exchange,
    Extent,
    Failure,
    FilePage,
    FileQuery,
    FileState,
    Ports,
    Position,
    Principal,
    Problem,
    Refused,
    Role,
)
from daemon import app
from daemon.auth import Identity, Kind, Scope
from daemon.catalog.records import PAGE_ROWS_MAX, Device, Disposition, OpenResult, State
from daemon.cleanup import CleanupBusy, CleanupReport
from daemon.device_secrets import derive_key, make_secret, read_secret
from daemon.exposition import Exposition, Gauges
from daemon.settings import Settings, Storage
from daemon.tasks import background
from daemon.upload import LiveUpload
from protocol.constants import ChecksumKind
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived
from protocol.ranges import Span
from tests.control.waiting import until
from tests.daemon.catalog.samples import DEVICE, REQUEST, TENANT
from tests.daemon.doubles import NOW_MS
from tests.daemon.keeping import CONTENT
from tests.daemon.operating import REPORT, FakeCleaner
from tests.daemon.running import FAILURE, Running, engine_on, failing

OTHER = "other-tenant"
BOSS = Principal(TENANT, "boss", Role.OPERATOR, frozenset({"read", "delete"}))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    settings = Settings(data_dir=tmp_path, storage=Storage(disk_free_min_bytes=0))
    async with engine_on(settings) as running:
        yield running


@pytest.fixture
def ports(running: Running) -> Ports:
    gauges = Gauges({}, {}, 0, 0, None, None, 0)
    return app.control_ports(running.engine, Exposition(running.engine.metrics, lambda: gauges, "1.2.3"))


async def refusal(work: Awaitable[object]) -> tuple[int, str]:
    """Status and registry's name of what is refused."""
    with pytest.raises(Refused) as refused:
        await work
    assert str(refused.value)
    return refused.value.status, refused.value.error.name


class TestErrors:
    def test_every_failure_of_the_control_plane_has_a_code_and_an_action(self, ports: Ports) -> None:
        Problems(ports.errors)
        assert set(ports.errors) == set(Failure)
        for info in ports.errors.values():
            code = ErrorCode[info.name]
            assert (info.code, info.scope, info.action) == (code, code.scope.value, code.action.name.lower())


class TestAuthenticator:
    def issue(self, running: Running, ttl_s: float = 60, **changes: object) -> str:
        identity = Identity(TENANT, DEVICE, Kind.DEVICE, frozenset({Scope.UPLOAD}), None)
        clock = running.engine.machine.clock
        changed = replace(identity, **changes)  # type: ignore[arg-type]  # each value fits the field it names
        return running.engine.issuer.issue(changed, ttl_s, clock.wall_ms())

    def test_a_devices_token_speaks_for_it(self, running: Running, ports: Ports) -> None:
        found = ports.authenticator.authenticate(self.issue(running))
        assert found == Principal(TENANT, DEVICE, Role.DEVICE, frozenset({"upload"}))

    def test_an_operators_token_speaks_for_the_tenant(self, running: Running, ports: Ports) -> None:
        token = self.issue(running, tenant=OTHER, subject="boss", kind=Kind.OPERATOR, scopes=frozenset({Scope.READ}))
        found = ports.authenticator.authenticate(token)
        assert found == Principal(OTHER, "boss", Role.OPERATOR, frozenset({"read"}))

    def test_a_token_that_is_none(self, ports: Ports) -> None:
        with pytest.raises(Refused) as refused:
            ports.authenticator.authenticate("nonsense")
        assert (refused.value.status, refused.value.error.name) == (401, "UNAUTHENTICATED")
        assert "nonsense" not in str(refused.value)

    def test_a_token_that_has_expired(self, running: Running, ports: Ports) -> None:
        with pytest.raises(Refused) as refused:
            ports.authenticator.authenticate(self.issue(running, ttl_s=-100))
        assert (refused.value.status, refused.value.error.name) == (401, "TOKEN_EXPIRED")

    async def test_a_disabled_devices_token(self, running: Running, ports: Ports) -> None:
        token = self.issue(running)
        await running.engine.catalog.set_disabled(TENANT, DEVICE, True, NOW_MS)
        await running.engine.gate.load()
        with pytest.raises(Refused) as refused:
            ports.authenticator.authenticate(token)
        assert (refused.value.status, refused.value.error.name) == (401, "DEVICE_DISABLED")
        operator = self.issue(running, kind=Kind.OPERATOR, scopes=frozenset({Scope.READ}))
        assert ports.authenticator.authenticate(operator).subject == DEVICE


class TestTokenExchange:
    @pytest.fixture
    async def secret(self, running: Running) -> str:
        secret = make_secret(running.engine.machine.entropy)
        await running.engine.catalog.add_device(Device(TENANT, DEVICE, derive_key(read_secret(secret)), NOW_MS))
        return secret

    async def test_a_right_secret_gets_a_token_to_upload(self, ports: Ports, secret: str) -> None:
        issued = await ports.token_exchange.exchange(TENANT, DEVICE, secret)
        assert issued.expires_in_s == 3600
        found = ports.authenticator.authenticate(issued.token)
        assert found == Principal(TENANT, DEVICE, Role.DEVICE, frozenset({"upload"}))

    @pytest.mark.parametrize("wrong", ["A" * 43, "not base64url!", "", "ü"])
    async def test_a_wrong_secret(self, ports: Ports, secret: str, wrong: str) -> None:
        assert await refusal(ports.token_exchange.exchange(TENANT, DEVICE, wrong)) == (401, "UNAUTHENTICATED")

    @pytest.mark.parametrize(("tenant", "device"), [(TENANT, "unknown"), (OTHER, DEVICE)])
    async def test_an_unknown_device(self, ports: Ports, secret: str, tenant: str, device: str) -> None:
        assert await refusal(ports.token_exchange.exchange(tenant, device, secret)) == (401, "UNAUTHENTICATED")

    async def test_the_key_of_an_unknown_device_is_no_ones_secret(self, ports: Ports, running: Running) -> None:
        await running.engine.catalog.set_disabled(TENANT, "never-enrolled", True, NOW_MS)
        exchange = ports.token_exchange.exchange(TENANT, "never-enrolled", "A" * 43)
        assert await refusal(exchange) == (401, "UNAUTHENTICATED")

    async def test_a_disabled_device_is_told_so_once_it_has_proven_itself(
        self, running: Running, ports: Ports, secret: str
    ) -> None:
        await running.engine.catalog.set_disabled(TENANT, DEVICE, True, NOW_MS)
        assert await refusal(ports.token_exchange.exchange(TENANT, DEVICE, secret)) == (403, "DEVICE_DISABLED")
        assert await refusal(ports.token_exchange.exchange(TENANT, DEVICE, "A" * 43)) == (401, "UNAUTHENTICATED")

    async def test_the_catalog_does_not_answer(self, running: Running, ports: Ports, secret: str) -> None:
        running.engine.catalog = failing()
        assert await refusal(ports.token_exchange.exchange(TENANT, DEVICE, secret)) == (503, "UNAVAILABLE")


class TestFiles:
    async def test_a_file_is_shown_with_all_that_is_known(self, running: Running, ports: Ports) -> None:
        upload = await running.keeping.add(1, NOW_MS, State.COMPLETE)
        file = await ports.files.get(TENANT, 1)
        assert file is not None
        assert (file.id, file.device, file.name, file.state) == (1, DEVICE, "file-1", FileState.COMPLETE)
        assert (file.size, file.next_expected_byte, file.ranges) == (10, 10, (Extent(0, 10),))
        assert (file.created_ms, file.updated_ms, file.completed_ms) == (NOW_MS, NOW_MS, NOW_MS)
        assert (file.crc32c, file.sha256) == (upload.crc32c, upload.sha256)
        assert (file.content_type, file.external_id, file.original_name) == ("", "", "")

    @pytest.mark.parametrize(
        ("state", "setting", "expires_ms"),
        [
            (State.RECEIVING, {"stale_s": 60}, NOW_MS + 60_000),
            (State.REJECTED, {"rejected_s": 30}, NOW_MS + 30_000),
            (State.COMPLETE, {"retention_s": 90}, NOW_MS + 90_000),
            (State.COMPLETE, {}, None),
            (State.PARTIAL, {"stale_s": 60}, None),
            (State.DELETED, {}, None),
        ],
    )
    async def test_when_it_expires(
        self, running: Running, ports: Ports, state: State, setting: dict[str, float], expires_ms: int | None
    ) -> None:
        cleanup = running.engine.settings.cleanup.model_copy(update=setting)
        running.engine.settings = running.engine.settings.model_copy(update={"cleanup": cleanup})
        await running.keeping.add(1, NOW_MS, state)
        file = await ports.files.get(TENANT, 1)
        assert file is not None
        assert (file.state.value, file.expires_ms) == (state.value, expires_ms)

    async def test_a_file_of_another_tenant_is_none(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS)
        assert await ports.files.get(OTHER, 1) is None
        assert await ports.files.find(OTHER, DEVICE, "file-1") is None
        assert await ports.files.list(FileQuery(OTHER, 10)) == FilePage((), None)
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
            page = await ports.files.list(FileQuery(TENANT, 2, after=after))
            seen.append([file.id for file in page.files])
            if page.next is None:
                break
            after = Position(page.next.created_ms, page.next.id)
        assert [each for page_ in seen for each in page_] == [5, 4, 3, 2, 1]
        assert max(map(len, seen)) == 2

    async def test_filters_reach_the_catalog(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        await running.keeping.add(2, NOW_MS + 10)

        async def listed(**filters: object) -> list[int]:
            query = replace(FileQuery(TENANT, 10), **filters)  # type: ignore[arg-type]  # each value fits the field it names
            return [file.id for file in (await ports.files.list(query)).files]

        assert await listed() == [2, 1]
        assert await listed(states=frozenset({FileState.COMPLETE})) == [1]
        assert await listed(name_prefix="file-2") == [2]
        assert await listed(device="another") == []
        assert await listed(updated_from_ms=NOW_MS + 1) == [2]
        assert await listed(updated_to_ms=NOW_MS + 1) == [1]

    async def test_no_page_is_longer_than_the_catalogs(self, ports: Ports) -> None:
        assert await ports.files.list(FileQuery(TENANT, PAGE_ROWS_MAX + 1)) == FilePage((), None)

    async def test_the_catalog_does_not_answer(self, running: Running, ports: Ports) -> None:
        running.engine.catalog = failing()
        for work in (
            ports.files.list(FileQuery(TENANT, 1)),
            ports.files.get(TENANT, 1),
            ports.files.find(TENANT, DEVICE, "x"),
        ):
            assert await refusal(work) == (503, "UNAVAILABLE")


class TestContents:
    async def test_a_file_is_read(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        assert ports.contents.read_cached(1, 2, 3) is None
        assert await ports.contents.read(1, 8, 100) == CONTENT[8:]
        assert ports.contents.read_cached(1, 2, 3) == bytearray(CONTENT[2:5])

    async def test_a_file_is_sent_to_a_socket(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        content = await ports.contents.open(1)
        ours, theirs = socketpair()
        with ours, theirs:
            async with aclosing(content.send(ours.fileno(), 2, 5)) as steps:
                assert [step async for step in steps] == [5]
            assert theirs.recv(100) == CONTENT[2:7]
        await content.close()

    async def test_a_deleted_file_is_read_no_more(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        await ports.contents.read(1, 0, 1)
        await ports.uploads.delete(TENANT, 1, BOSS)
        assert ports.contents.read_cached(1, 0, 1) is None
        assert await refusal(ports.contents.read(1, 0, 1)) == (410, "GONE")

    @pytest.mark.parametrize("state", [State.COMPLETE, State.DELETED])
    async def test_bytes_that_are_gone(self, running: Running, ports: Ports, state: State) -> None:
        await running.keeping.add(1, NOW_MS, state)
        running.keeping.path(1).unlink()
        assert await refusal(ports.contents.open(1)) == (410, "GONE")
        assert await refusal(ports.contents.read(1, 0, 1)) == (410, "GONE")

    async def test_a_file_that_never_was(self, ports: Ports) -> None:
        assert await refusal(ports.contents.open(1)) == (410, "GONE")


class Listener:
    """A stream that notes how it ended."""

    def __init__(self) -> None:
        self.failures: list[ErrorCode] = []
        self.acknowledged_bytes = 0

    def acknowledged(self, next_expected_byte: int, beyond: object, settled_bytes: int) -> None:
        self.acknowledged_bytes = next_expected_byte

    def failed(self, code: ErrorCode, detail: str) -> None:
        self.failures.append(code)

    def refused(self, span: Span, code: ErrorCode, settled_bytes: int) -> None:
        self.failures.append(code)

    def verifying(self, wait_ms: int) -> None:
        raise AssertionError

    def finished(self, upload: object) -> None:
        raise AssertionError

    def aborted(self, upload_id: int) -> None:
        raise AssertionError


class TestUploads:
    async def test_a_complete_file_is_deleted_with_its_bytes(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        await ports.uploads.delete(TENANT, 1, BOSS)
        assert (await running.keeping.get(1)).state is State.DELETED
        assert not running.keeping.path(1).exists()
        (line,) = [each for each in running.log.lines if each["event"] == "upload deleted"]
        assert (line["upload"], line["device"], line["by"]) == (f"{1:016x}", DEVICE, "boss")

    async def test_a_live_upload_is_cancelled_and_its_device_is_told(self, running: Running, ports: Ports) -> None:
        listener = Listener()
        async with background(running.engine.run()):
            opened = await running.engine.uploads.open(replace(REQUEST, size=20), listener)
            assert isinstance(opened, tuple)
            upload = live(opened)
            data = ChunksReceived(1, 0, 10, (CONTENT,), 1, ChecksumKind.CRC32C, None)
            running.engine.uploads.receive(upload, data)
            await until(lambda: listener.acknowledged_bytes == 10)
            await ports.uploads.delete(TENANT, upload.id, BOSS)
        assert listener.failures == [ErrorCode.GONE]
        assert not running.engine.uploads.is_live(upload.id)
        assert not running.keeping.path(upload.id).exists()
        again = await running.engine.uploads.open(
            replace(REQUEST, size=20, disposition=Disposition.RESUME_OR_CREATE), Listener()
        )
        assert getattr(again, "code", None) is ErrorCode.GONE

    async def test_what_is_not_there_or_another_tenants(self, running: Running, ports: Ports) -> None:
        await running.keeping.add(1, NOW_MS, State.COMPLETE)
        assert await refusal(ports.uploads.delete(TENANT, 2, BOSS)) == (404, "RESOURCE_UNKNOWN")
        assert await refusal(ports.uploads.delete(OTHER, 1, BOSS)) == (404, "RESOURCE_UNKNOWN")
        assert (await running.keeping.get(1)).state is State.COMPLETE
        assert running.keeping.path(1).exists()

    @pytest.mark.parametrize("state", [State.DELETED, State.ABORTED, State.EXPIRED])
    async def test_what_has_ended(self, running: Running, ports: Ports, state: State) -> None:
        await running.keeping.add(1, NOW_MS, state, content=None)
        assert await refusal(ports.uploads.delete(TENANT, 1, BOSS)) == (410, "GONE")

    async def test_the_catalog_does_not_answer(self, running: Running, ports: Ports) -> None:
        running.engine.catalog = failing()
        assert await refusal(ports.uploads.delete(TENANT, 1, BOSS)) == (503, "UNAVAILABLE")


class TestCleaner:
    @pytest.fixture
    def cleaner(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> FakeCleaner:
        cleaner = FakeCleaner()
        monkeypatch.setattr(running.engine, "cleanup", cleaner)
        return cleaner

    async def test_every_figure_is_told(self, ports: Ports, cleaner: FakeCleaner) -> None:
        report = await ports.cleaner.run(dry_run=True)
        assert cleaner.asked == [True]
        assert {name: getattr(report, name) for name in CleanupReport.__slots__} == {
            name: getattr(REPORT, name) for name in CleanupReport.__slots__
        }

    @pytest.mark.parametrize(
        ("error", "expected"),
        [(CleanupBusy(), (409, "CONFLICT")), (OSError("gone"), (503, "UNAVAILABLE"))],
    )
    async def test_a_pass_that_cannot_be_made(
        self, ports: Ports, cleaner: FakeCleaner, error: Exception, expected: tuple[int, str]
    ) -> None:
        cleaner.error = error
        assert await refusal(ports.cleaner.run(dry_run=False)) == expected

    async def test_a_real_pass(self, running: Running, ports: Ports) -> None:
        async with background(running.engine.run()):
            assert (await ports.cleaner.run(dry_run=True)).stopped is None


class TestTheRest:
    async def test_health_tells_what_is_wrong(self, running: Running, ports: Ports) -> None:
        assert await ports.health.problems() == []
        running.engine.catalog = failing()
        assert await ports.health.problems() == [Problem("catalog", FAILURE)]

    def test_metrics_are_rendered(self, ports: Ports) -> None:
        rendered = ports.exposition.render("")
        assert b'uplinkd_build_info{python="' in rendered.body
        assert rendered.content_type.startswith("text/plain")

    def test_requests_are_logged_without_query_or_secret(self, running: Running, ports: Ports) -> None:
        exchange = Exchange("r1", "GET", "/v1/files/{id}", "/v1/files/1", 404, 0.1, 7, "RESOURCE_UNKNOWN", "", "::1")
        ports.log.exchange(exchange)
        (line,) = running.log.lines
        assert line == {
            "event": "http request",
            "log_level": "info",
            "request": "r1",
            "method": "GET",
            "path": "/v1/files/1",
            "status": 404,
            "duration_s": 0.1,
            "sent_bytes": 7,
            "error": "RESOURCE_UNKNOWN",
            "subject": None,
            "peer": "::1",
        }

    def test_repeated_requests_are_logged_as_one(self, running: Running, ports: Ports) -> None:
        ports.log.exchange(Exchange("r1", "GET", "/", "/", 206, 0.1, 7, "", "", "::1", repeats=3))
        assert running.log.lines[0]["repeats"] == 3

    def test_a_fault_is_logged_with_its_traceback(self, running: Running, ports: Ports) -> None:
        error = ValueError("broken")
        ports.log.failure("r1", "/v1/files", error)
        (line,) = running.log.lines
        assert (line["log_level"], line["request"], line["exc_info"]) == ("error", "r1", error)

    def test_request_ids_are_new_each_time(self, ports: Ports) -> None:
        one, other = ports.request_ids.new(), ports.request_ids.new()
        assert one != other
        assert len(one) == 24


async def test_commands_on_a_directory_that_nobody_owns(tmp_path: Path) -> None:
    async with app.offline(Settings(data_dir=tmp_path)) as commands:
        assert not (await commands.status()).is_running


def live(opened: tuple[OpenResult, LiveUpload | None]) -> LiveUpload:
    """The upload that was opened."""
    assert opened[1] is not None
    return opened[1]
