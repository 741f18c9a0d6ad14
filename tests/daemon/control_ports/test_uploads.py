"""What is deleted, on a real core, as control/ports.py promises it."""

from dataclasses import replace

import pytest

from control.ports import (
    Ports,
)
from daemon.catalog.records import OpenResult, State
from daemon.ingest.live_upload import LiveUpload
from daemon.tasks import background
from protocol.constants import Disposition
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.support.catalog_samples import DEVICE, REQUEST, TENANT
from tests.support.fake_machine import NOW_MS
from tests.support.populated_store import CONTENT
from tests.support.refusals import BOSS, OTHER, refusal
from tests.support.running_core import Running, failing
from tests.support.upload_streams import Run
from tests.support.waiting import until


class Listener:
    """A stream that notes how it ended."""

    def __init__(self) -> None:
        self.failures: list[ErrorCode] = []
        self.acknowledged_bytes = 0

    def acknowledged(self, next_expected_byte: int, beyond: object, answered_bytes: int) -> None:
        self.acknowledged_bytes = next_expected_byte

    def failed(self, code: ErrorCode, detail: str) -> None:
        self.failures.append(code)

    def refused(self, span: Span, code: ErrorCode, answered_bytes: int) -> None:
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
        async with background(running.core.run()):
            opened = await running.core.uploads.open(replace(REQUEST, size=20), listener)
            assert isinstance(opened, tuple)
            upload = live(opened)
            running.core.uploads.receive(upload, Run(0, (CONTENT,)), None)
            await until(lambda: listener.acknowledged_bytes == 10)
            await ports.uploads.delete(TENANT, upload.id, BOSS)
        assert listener.failures == [ErrorCode.GONE]
        assert not running.core.live.is_live(upload.id)
        assert not running.keeping.path(upload.id).exists()
        again = await running.core.uploads.open(
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
        running.core.catalog = failing()
        assert await refusal(ports.uploads.delete(TENANT, 1, BOSS)) == (503, "UNAVAILABLE")


def live(opened: tuple[OpenResult, LiveUpload | None]) -> LiveUpload:
    """The upload that was opened."""
    assert opened[1] is not None
    return opened[1]
