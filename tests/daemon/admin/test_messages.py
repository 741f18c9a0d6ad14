"""Requests and answers round-trip, and invalid lines are refused with advice."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.admin.commands import perform
from daemon.admin.messages import (
    LINE_BYTES_MAX,
    AddDevice,
    Answer,
    AskStatus,
    Clean,
    CommandRefused,
    EndOfResults,
    Greeting,
    IssueToken,
    ListDevices,
    Request,
    Result,
    SwitchDevice,
    Verify,
    read_answer,
    read_request,
    to_json,
    write_answer,
    write_request,
)
from daemon.admin.results import CommandFailed, DaemonStatus, DeviceAdded, DeviceListed, DeviceSwitched, TokenIssued
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Completion, State
from daemon.identity.tokens import Kind, Scope
from daemon.upkeep.verify import Checked, Verdict, VerifyProgress
from protocol.errors import ErrorCode
from tests.support.catalog_samples import REQUEST
from tests.support.command_parts import REPORT, VERSION, Parts, parts_in
from tests.support.fake_machine import NOW_MS

REQUESTS: list[Request] = [
    AddDevice(tenant="acme", device="pump-7"),
    AddDevice(tenant=None, device="pump-7"),
    AddDevice(tenant=None, device="pump-7", replace=True),
    ListDevices(tenant=None),
    SwitchDevice(tenant=None, device="pump-7", disable=True),
    IssueToken(tenant=None, subject="ада", kind=Kind.OPERATOR, scopes=frozenset({Scope.READ}), ttl_s=90.0),
    IssueToken(tenant=None, subject="pump-7", kind=Kind.DEVICE, scopes=frozenset(), ttl_s=None),
    Clean(dry_run=True),
    Verify(tenant="acme", device=None),
    AskStatus(),
]
ANSWERS: list[Answer] = [
    Greeting(VERSION),
    DeviceAdded("acme", "pump-7", "secret", is_disabled=False),
    DeviceListed("acme", "pump-7", is_enrolled=True, created_ms=1, disabled_ms=None),
    DeviceSwitched("acme", "pump-7", is_disabled=True, changed=False),
    TokenIssued("acme", "pump-7", Kind.DEVICE, (Scope.READ, Scope.UPLOAD), 90.0, "token"),
    REPORT,
    Checked("0" * 16, "acme", "pump-7", "log/\u202e1\u2028.bin", 2**63 - 1, Verdict.DAMAGED, "ends early"),
    VerifyProgress(1, 2),
    DaemonStatus(True, VERSION, {State.COMPLETE: 3}, ("disk: full",)),
    CommandRefused("CONFLICT", "because"),
    EndOfResults(),
]


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts_in(tmp_path) as made:
        yield made


class TestLines:
    @pytest.mark.parametrize("request_", REQUESTS, ids=repr)
    def test_requests_round_trip(self, request_: Request) -> None:
        line = write_request(request_)
        assert line.count(b"\n") == 1 and line.endswith(b"\n")
        assert read_request(line) == request_

    @pytest.mark.parametrize("answer", ANSWERS, ids=repr)
    def test_answers_round_trip(self, answer: Answer) -> None:
        line = write_answer(answer)
        assert line.count(b"\n") == 1 and line.endswith(b"\n")
        assert read_answer(line) == answer

    def test_the_longest_name_fits_a_line(self) -> None:
        line = write_answer(Checked("f" * 16, "t" * 64, "d" * 128, '"' * 255, 2**63 - 1, Verdict.OK, "x" * 1000))
        assert len(line) < LINE_BYTES_MAX

    def test_json_for_programs_is_only_the_value(self) -> None:
        assert json.loads(to_json(VerifyProgress(1, 2))) == {"files": 1, "read_bytes": 2}

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"{",
            b"\xff",
            b"[]",
            b"{}",
            b"1",
            b"[" * 100_000,
            b'{"type": "AskStatus"}',
            b'{"type": "AskStatus", "value": {}, "more": 1}',
            b'{"type": "Other", "value": {}}',
            b'{"type": ["AskStatus"], "value": {}}',
            b'{"type": "AddDevice", "value": {}}',
            b'{"type": "AddDevice", "value": {"tenant": null, "device": 7}}',
            b'{"type": "Clean", "value": {"dry_run": "yes"}}',
            b'{"type": "Clean", "value": []}',
            b'{"type": "IssueToken", "value": {"tenant": null, "subject": "a", "kind": "king", "scopes": []}}',
        ],
        ids=lambda line: repr(line[:60]),
    )
    def test_an_invalid_request_is_refused(self, line: bytes) -> None:
        with pytest.raises(CommandFailed, match="different versions") as refused:
            read_request(line)
        assert refused.value.code is ErrorCode.REQUEST_INVALID

    def test_an_unknown_field_is_refused(self) -> None:
        with pytest.raises(CommandFailed, match="only_tenant"):
            read_request(b'{"type": "Clean", "value": {"dry_run": false, "only_tenant": "acme"}}')

    def test_a_refusal_does_not_quote_values(self) -> None:
        with pytest.raises(CommandFailed) as refused:
            read_request(b'{"type": "AddDevice", "value": {"tenant": null, "device": "a", "secret": "hunter2"}}')
        assert "hunter2" not in str(refused.value)

    @pytest.mark.parametrize(
        "line", [b"", b'{"type": "Other", "value": {}}', b'{"type": "VerifyProgress", "value": {}}']
    )
    def test_an_invalid_answer_is_refused(self, line: bytes) -> None:
        with pytest.raises(CommandFailed, match="different versions"):
            read_answer(line)


class TestPerform:
    @staticmethod
    async def kinds(parts: Parts, request: Request) -> list[type[Result]]:
        return [type(each) async for each in perform(parts.commands(), request)]

    @pytest.mark.parametrize(
        ("request_", "kinds"),
        [
            (AddDevice(tenant=None, device="pump-7"), [DeviceAdded]),
            (ListDevices(tenant=None), []),
            (SwitchDevice(tenant=None, device="pump-7", disable=False), [DeviceSwitched]),
            (IssueToken(tenant=None, subject="a", kind=Kind.DEVICE, scopes=frozenset(), ttl_s=None), [TokenIssued]),
            (Clean(dry_run=True), [type(REPORT)]),
            (Verify(tenant=None, device=None), []),
            (AskStatus(), [DaemonStatus]),
        ],
        ids=lambda value: type(value).__name__,
    )
    async def test_each_request_has_its_kinds_of_results(
        self, parts: Parts, request_: Request, kinds: list[type[Result]]
    ) -> None:
        assert await self.kinds(parts, request_) == kinds

    async def test_a_device_can_be_disabled_and_enabled(self, parts: Parts) -> None:
        for disable in (True, False):
            request = SwitchDevice(tenant=None, device="pump-7", disable=disable)
            results = [each async for each in perform(parts.commands(), request)]
            assert results == [DeviceSwitched("default", "pump-7", is_disabled=disable, changed=True)]
        assert await self.kinds(parts, ListDevices(tenant=None)) == [DeviceListed]

    async def test_verified_files_are_reported(self, parts: Parts) -> None:
        await parts.catalog.open(replace(REQUEST, size=0))
        await parts.catalog.complete(Completion(1, 1, 0, 0, None, (), NOW_MS))
        assert await self.kinds(parts, Verify(tenant=None, device=None)) == [Checked]

    @pytest.mark.parametrize("error", [CatalogFailed("the catalog failed"), OSError(5, "the disk failed")])
    async def test_failures_of_catalog_and_disk_become_command_failures(self, parts: Parts, error: Exception) -> None:
        parts.cleanup.error = error
        with pytest.raises(CommandFailed, match="failed") as refused:
            await self.kinds(parts, Clean(dry_run=False))
        assert refused.value.code is ErrorCode.UNAVAILABLE
