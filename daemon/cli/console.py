"""What the command line prints: results on standard output, everything else on standard error.

For programs, each result is one JSON object per line. Names that devices chose are escaped, so that they cannot control
a terminal.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO, TypeAlias

from pydantic import TypeAdapter

from daemon.admin.results import DaemonStatus, DeviceAdded, DeviceListed, DeviceSwitched, TokenIssued
from daemon.catalog.records import CleanupReport
from daemon.cli.checks import Effective, Finding
from daemon.settings import Settings
from daemon.upkeep.verify import Checked, Verdict, VerifyProgress

MIB = 1024 * 1024

ANY_HOSTS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not listened on
"""Addresses that a daemon can listen on, but that a client cannot connect to."""

Lasting: TypeAlias = (
    DeviceAdded
    | DeviceListed
    | DeviceSwitched
    | TokenIssued
    | CleanupReport
    | Checked
    | DaemonStatus
    | Effective
    | Finding
)
"""Results that stay on the screen, unlike progress."""

_JSON: Mapping[type[Lasting], TypeAdapter[Lasting]] = {
    each: TypeAdapter(each)
    for each in (
        DeviceAdded,
        DeviceListed,
        DeviceSwitched,
        TokenIssued,
        CleanupReport,
        Checked,
        DaemonStatus,
        Effective,
        Finding,
    )
}


class Console:
    """Prints results, notes and failures. With `quiet`, only secrets, tokens and problems."""

    def __init__(self, out: TextIO, err: TextIO, *, quiet: bool, as_json: bool) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet
        self._as_json = as_json
        self._has_progress = False

    def show(self, result: Lasting | VerifyProgress, settings: Settings) -> None:
        """Print one result; `settings` are those of the command."""
        if isinstance(result, VerifyProgress):
            self._progress(result)
            return
        self._end_progress()
        if self._as_json:
            print(_JSON[type(result)].dump_json(result).decode(), file=self._out, flush=True)
        elif not self._quiet:
            print(_text(result, settings), file=self._out, flush=True)
        elif isinstance(result, DeviceAdded):
            print(result.secret, file=self._out, flush=True)
        elif not _is_routine(result):
            print(_text(result, settings), file=self._out, flush=True)

    def note(self, text: str) -> None:
        """Print a hint for people; programs do not get it."""
        self._end_progress()
        if not self._quiet and not self._as_json:
            print(text, file=self._err)

    def failure(self, code: str, detail: str) -> None:
        """Print why a command failed, and what to do."""
        self._end_progress()
        line = json.dumps({"error": code, "detail": detail}) if self._as_json else f"uplinkd: {detail}"
        print(line, file=self._err)

    def _progress(self, progress: VerifyProgress) -> None:
        if self._err.isatty() and not self._quiet and not self._as_json:
            text = f"\r{progress.files} files, {progress.read_bytes // MIB} MiB"
            print(text, end="", file=self._err, flush=True)
            self._has_progress = True

    def _end_progress(self) -> None:
        if self._has_progress:
            print(file=self._err)
            self._has_progress = False


def _is_routine(result: Lasting) -> bool:
    match result:
        case DeviceSwitched() | Effective():
            return True
        case CleanupReport():
            return result.stopped is None
        case Checked():
            return result.verdict is Verdict.OK
        case Finding():
            return result.is_good
        case _:
            return False


def _text(result: Lasting, settings: Settings) -> str:
    match result:
        case DeviceAdded():
            return _added(result, settings)
        case DeviceListed():
            return _listed(result)
        case DeviceSwitched():
            return _switched(result)
        case TokenIssued():
            return result.token
        case CleanupReport():
            return _cleaned(result)
        case Checked():
            return _checked(result)
        case DaemonStatus():
            return _status(result)
        case Effective():
            return f"{result.key} = {json.dumps(result.value, ensure_ascii=False)}  # {result.origin}"
        case Finding():
            return f"{result.check}: {'ok' if result.is_good else 'NOT OK'}: {result.detail}"


def _added(added: DeviceAdded, settings: Settings) -> str:
    """Lines for a shell, to paste or to give to eval."""
    lines = [f"# device {added.device} of tenant {added.tenant} is enrolled; its secret is shown only this once"]
    if added.is_disabled:
        lines.append(f"# it is still disabled; to enable it: uplinkd device enable {added.device}")
    lines.append(f"export UPLINK_DEVICE={added.device}")
    if added.tenant != Settings().auth.tenant_default:
        lines.append(f"export UPLINK_TENANT={added.tenant}")
    lines.append(f"export UPLINK_SECRET={added.secret}")
    listen, default = settings.listen, Settings().listen
    if (listen.host, listen.port) != (default.host, default.port) and listen.port:
        host = default.host if listen.host in ANY_HOSTS else listen.host
        lines.append(f"export UPLINK_SERVER={f'[{host}]' if ':' in host else host}:{listen.port}")
    return "\n".join([*lines, "# uplink send FILE"])


def _listed(device: DeviceListed) -> str:
    state = "enabled" if device.disabled_ms is None else f"disabled {_time(device.disabled_ms)}"
    enrolled = f"enrolled {_time(device.created_ms)}" if device.is_enrolled else "not enrolled"
    return f"{device.tenant}  {device.device}  {enrolled}  {state}"


def _switched(switched: DeviceSwitched) -> str:
    state = "disabled" if switched.is_disabled else "enabled"
    return f"device {switched.device} of tenant {switched.tenant} is {state}{'' if switched.changed else ' already'}"


def _cleaned(report: CleanupReport) -> str:
    would = "would be " if report.dry_run else ""
    counts = {
        f"stale uploads {would}deleted": report.stale_deleted,
        f"stale uploads {would}kept as partial": report.stale_kept,
        f"expired complete files {would}deleted": report.retention_expired,
        f"rejected uploads {would}deleted": report.rejected_deleted,
        f"ended uploads {would}forgotten": report.tombstones_purged,
        f"orphans {would}quarantined": report.orphans_quarantined,
        f"bytes {would}freed": report.freed_bytes,
    }
    lines = [f"{count:>12} {what}" for what, count in counts.items()]
    return "\n".join(lines if report.stopped is None else [*lines, f"stopped early: {report.stopped}"])


def _checked(checked: Checked) -> str:
    # repr escapes everything that could control a terminal or reorder the line.
    name = f"{checked.upload}  {checked.tenant}/{checked.device}  {checked.name!r}"
    return f"{name}: {checked.verdict}" if not checked.detail else f"{name}: {checked.verdict}: {checked.detail}"


def _status(status: DaemonStatus) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in status.uploads.items() if count) or "none"
    running = "runs" if status.is_running else "does not run"
    problems = [f"problem: {each}" for each in status.problems]
    return "\n".join([f"uplinkd {status.version} {running}", f"uploads: {counts}", *problems])


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
