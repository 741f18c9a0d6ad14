"""The command line's output, for people and for programs."""

import json
from dataclasses import replace
from io import StringIO

import pytest

from daemon.admin.results import DaemonStatus, DeviceAdded, DeviceListed, DeviceSwitched, TokenIssued
from daemon.catalog.records import State
from daemon.cli.checks import Check, Effective, Finding
from daemon.cli.console import Console, Lasting
from daemon.identity.tokens import Kind, Scope
from daemon.settings import Settings, load
from daemon.upkeep.verify import Checked, Verdict, VerifyProgress
from tests.support.command_parts import REPORT, VERSION
from tests.support.fake_machine import NOW_MS

ADDED = DeviceAdded("default", "pump-7", "s3cret", is_disabled=False)
OK = Checked("0" * 15 + "1", "default", "pump-7", "log/1.bin", 7, Verdict.OK)
DAMAGED = replace(OK, verdict=Verdict.DAMAGED, detail="ends early")
TOKEN = TokenIssued("default", "ada", Kind.OPERATOR, (Scope.READ,), 90.0, "a.b.c")
GOOD = Finding(Check.TLS, True, "off")
BAD = Finding(Check.KEYS, False, "too short")


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def printed(result: Lasting, *, quiet: bool = False, as_json: bool = False, settings: Settings | None = None) -> str:
    """The text printed on standard output; standard error must stay empty."""
    out, err = StringIO(), StringIO()
    Console(out, err, quiet=quiet, as_json=as_json).show(result, settings or Settings())
    assert err.getvalue() == ""
    return out.getvalue()


class TestDeviceAdded:
    def test_the_output_is_lines_for_a_shell(self) -> None:
        assert printed(ADDED) == (
            "# device pump-7 of tenant default is enrolled; its secret is shown only this once\n"
            "export UPLINK_DEVICE=pump-7\n"
            "export UPLINK_SECRET=s3cret\n"
            "# uplink send FILE\n"
        )

    def test_a_tenant_other_than_the_default_is_exported(self) -> None:
        assert "export UPLINK_TENANT=acme\n" in printed(replace(ADDED, tenant="acme"))

    def test_a_disabled_device_comes_with_the_command_to_enable_it(self) -> None:
        assert "uplinkd device enable pump-7\n" in printed(replace(ADDED, is_disabled=True))

    @pytest.mark.parametrize(
        ("host", "port", "server"),
        [
            ("127.0.0.1", "7711", "127.0.0.1:7711"),
            ("192.0.2.1", "7710", "192.0.2.1:7710"),
            ("::1", "7710", "[::1]:7710"),
            ("0.0.0.0", "7710", "127.0.0.1:7710"),
        ],
    )
    def test_the_server_is_where_the_daemon_listens(self, host: str, port: str, server: str) -> None:
        settings = load(None, {}, {"listen.host": host, "listen.port": port})
        assert f"export UPLINK_SERVER={server}\n" in printed(ADDED, settings=settings)

    def test_a_port_that_the_system_chooses_is_left_out(self) -> None:
        assert "UPLINK_SERVER" not in printed(ADDED, settings=load(None, {}, {"listen.port": 0}))

    def test_quiet_prints_only_the_secret(self) -> None:
        assert printed(ADDED, quiet=True) == "s3cret\n"


class TestForPeople:
    @pytest.mark.parametrize(
        ("result", "text"),
        [
            (
                DeviceListed("acme", "pump-7", is_enrolled=True, created_ms=NOW_MS, disabled_ms=None),
                "acme  pump-7  enrolled 2027-01-15T08:00:00Z  enabled\n",
            ),
            (
                DeviceListed("acme", "pump-7", is_enrolled=False, created_ms=NOW_MS, disabled_ms=NOW_MS),
                "acme  pump-7  not enrolled  disabled 2027-01-15T08:00:00Z\n",
            ),
            (
                DeviceSwitched("acme", "pump-7", is_disabled=True, changed=True),
                "device pump-7 of tenant acme is disabled\n",
            ),
            (
                DeviceSwitched("acme", "pump-7", is_disabled=False, changed=False),
                "device pump-7 of tenant acme is enabled already\n",
            ),
            (TOKEN, "a.b.c\n"),
            (OK, "0000000000000001  default/pump-7  'log/1.bin': ok\n"),
            (DAMAGED, "0000000000000001  default/pump-7  'log/1.bin': damaged: ends early\n"),
            (
                DaemonStatus(True, VERSION, {State.RECEIVING: 2, State.PARTIAL: 0, State.COMPLETE: 3}, ("disk: full",)),
                "uplinkd 1.2.3 runs\nuploads: 2 receiving, 3 complete\nproblem: disk: full\n",
            ),
            (DaemonStatus(False, VERSION, {}, ()), "uplinkd 1.2.3 does not run\nuploads: none\n"),
            (Effective("listen.port", 7710, "default"), "listen.port = 7710  # default\n"),
            (Effective("log.level", "info", "flag"), 'log.level = "info"  # flag\n'),
            (GOOD, "tls: ok: off\n"),
            (BAD, "keys: NOT OK: too short\n"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_each_result_has_its_text(self, result: Lasting, text: str) -> None:
        assert printed(result) == text

    def test_a_cleanup_report_is_a_table(self) -> None:
        assert printed(REPORT).splitlines() == [
            "           1 stale uploads would be deleted",
            "           2 stale uploads would be kept as partial",
            "           3 expired complete files would be deleted",
            "           4 rejected uploads would be deleted",
            "           5 ended uploads would be forgotten",
            "           6 orphans would be quarantined",
            "           7 bytes would be freed",
        ]
        stopped = printed(replace(REPORT, dry_run=False, stopped="the clocks disagree")).splitlines()
        assert stopped[0] == "           1 stale uploads deleted"
        assert stopped[-1] == "stopped early: the clocks disagree"

    def test_a_name_cannot_control_the_terminal(self) -> None:
        text = printed(replace(OK, name="a\u202eb\u2028c\x1b[2Jd"))
        assert text.isprintable() or text[:-1].isprintable()
        assert "a\\u202eb\\u2028c\\x1b[2Jd" in text

    @pytest.mark.parametrize(
        ("result", "is_printed"),
        [
            (DeviceSwitched("acme", "pump-7", is_disabled=True, changed=True), False),
            (Effective("listen.port", 7710, "default"), False),
            (REPORT, False),
            (replace(REPORT, stopped="the clocks disagree"), True),
            (OK, False),
            (DAMAGED, True),
            (GOOD, False),
            (BAD, True),
            (TOKEN, True),
            (DaemonStatus(True, VERSION, {}, ()), True),
        ],
        ids=repr,
    )
    def test_quiet_hides_routine_results(self, result: Lasting, is_printed: bool) -> None:
        assert printed(result, quiet=True) == (printed(result) if is_printed else "")


class TestForPrograms:
    @pytest.mark.parametrize(
        "result",
        [ADDED, TOKEN, OK, DAMAGED, REPORT, GOOD, BAD, Effective("auth.public_keys", ["a"], "flag")],
        ids=lambda value: type(value).__name__,
    )
    def test_each_result_is_one_object_on_one_line(self, result: Lasting) -> None:
        line = printed(result, as_json=True)
        assert line.count("\n") == 1
        assert set(json.loads(line)) == set(type(result).__dataclass_fields__)

    def test_json_keeps_the_types_of_values(self) -> None:
        assert json.loads(printed(TOKEN, as_json=True)) == {
            "tenant": "default",
            "subject": "ada",
            "kind": "operator",
            "scopes": ["read"],
            "expires_in_s": 90.0,
            "token": "a.b.c",
        }

    def test_quiet_does_not_change_json(self) -> None:
        assert printed(OK, as_json=True, quiet=True) == printed(OK, as_json=True)

    def test_a_failure_is_an_object_with_code_and_detail(self) -> None:
        err = StringIO()
        Console(StringIO(), err, quiet=True, as_json=True).failure("CONFLICT", "already enrolled")
        assert json.loads(err.getvalue()) == {"error": "CONFLICT", "detail": "already enrolled"}


class TestStandardError:
    def test_failures_name_the_program(self) -> None:
        out, err = StringIO(), StringIO()
        Console(out, err, quiet=True, as_json=False).failure("CONFLICT", "already enrolled")
        assert (out.getvalue(), err.getvalue()) == ("", "uplinkd: already enrolled\n")

    @pytest.mark.parametrize(("quiet", "as_json"), [(True, False), (False, True)])
    def test_notes_are_for_people(self, quiet: bool, as_json: bool) -> None:
        err = StringIO()
        Console(StringIO(), err, quiet=False, as_json=False).note("no devices")
        assert err.getvalue() == "no devices\n"
        err = StringIO()
        Console(StringIO(), err, quiet=quiet, as_json=as_json).note("no devices")
        assert err.getvalue() == ""

    def test_progress_on_a_terminal_is_overwritten(self) -> None:
        out, err = StringIO(), Terminal()
        console = Console(out, err, quiet=False, as_json=False)
        console.show(VerifyProgress(1, 64 << 20), Settings())
        console.show(VerifyProgress(2, 128 << 20), Settings())
        console.show(DAMAGED, Settings())
        console.failure("UNAVAILABLE", "gone")
        assert err.getvalue() == "\r1 files, 64 MiB\r2 files, 128 MiB\nuplinkd: gone\n"
        assert out.getvalue() == printed(DAMAGED)

    @pytest.mark.parametrize(
        ("err", "quiet", "as_json"),
        [(StringIO(), False, False), (Terminal(), True, False), (Terminal(), False, True)],
        ids=["file", "quiet", "json"],
    )
    def test_progress_appears_only_on_a_terminal(self, err: StringIO, quiet: bool, as_json: bool) -> None:
        out = StringIO()
        Console(out, err, quiet=quiet, as_json=as_json).show(VerifyProgress(1, 2), Settings())
        assert (out.getvalue(), err.getvalue()) == ("", "")
