"""The console command `uplinkd`."""

import argparse
import asyncio
import gc
import os
import re
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import version
from pathlib import Path
from typing import TextIO, TypeAlias

import uvloop

from daemon import app
from daemon.adapters import descriptors
from daemon.adapters.clock import SystemClock
from daemon.adapters.entropy import SystemEntropy
from daemon.adapters.exits import leave
from daemon.adapters.files import SystemFiles
from daemon.adapters.log_stream import LogStream
from daemon.admin.messages import (
    AddDevice,
    AskStatus,
    Clean,
    IssueToken,
    ListDevices,
    Request,
    Result,
    SwitchDevice,
    Verify,
)
from daemon.admin.results import CommandFailed, DaemonStatus
from daemon.admin.unix_socket import DaemonSilent
from daemon.catalog.interface import CatalogFailed, CatalogNewer
from daemon.catalog.records import CleanupReport
from daemon.cli.checks import effective, findings
from daemon.cli.console import Console
from daemon.cli.dispatch import PATIENCE_S, Offline, offline, operate
from daemon.core import DirectoryLocked
from daemon.identity.keys import KeysInvalid
from daemon.identity.tokens import SCOPES_DEFAULT, Kind, Scope
from daemon.settings import FILE_VARIABLE, Settings, SettingsInvalid, load
from daemon.telemetry.logs import Logs, configure
from daemon.upkeep.verify import Checked, Verdict
from protocol.errors import ErrorCode

EPILOG = f"""\
Settings come from the file given by --config or {FILE_VARIABLE}, then from the environment (UPLINKD_LISTEN__PORT=7711),
then from --set; later sources override earlier ones, and all override the defaults.

The running daemon carries commands out; they reach it through its admin socket. When no daemon runs, they lock the data
directory and do the work themselves. Either way they need the daemon's user, or root.

exit codes:
  0    done
  1    failed, or there is a problem; the message says what to do
  2    wrong usage, or settings that are not valid
  3    the data directory is locked, and no daemon answers at the admin socket
  4    verify found files that are damaged, missing or unreadable
  130  interrupted
"""

SECONDS: Mapping[str, int] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

OPERATOR = "operator"
"""The subject of an operator's token without --subject."""

GARBAGE_OBJECTS = (10_000, 20, 100)
"""New objects between garbage collections: each takes 1 ms, and a full one (40 ms with ten thousand connections) comes
once in millions. Connections and uploads form no cycles, so they are freed without it."""


class Exit(IntEnum):
    """Exit codes, as the epilog documents them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SILENT = 3
    DAMAGED = 4
    INTERRUPTED = 130


Serve: TypeAlias = Callable[
    [Settings, Callable[[], Settings], Mapping[str, str], int, Logs], Coroutine[None, None, int]
]
"""Runs the daemon. Takes the settings, a way to load them again, the environment, the process's id, and the logs."""


@dataclass(frozen=True, slots=True)
class Process:
    """The process that runs the command, and the functions it calls."""

    environment: Mapping[str, str]
    out: TextIO
    err: TextIO
    pid: int
    uid: int
    serve: Serve
    offline: Offline
    patience_s: float = PATIENCE_S


Command: TypeAlias = Callable[[argparse.Namespace, "Sources", Console, Process], Exit]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the settings come from."""

    file: Path | None
    environment: Mapping[str, str]
    flags: Mapping[str, str]

    def load(self) -> Settings:
        """Raises SettingsInvalid."""
        return load(self.file, self.environment, self.flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    # The daemon's files hold keys and other people's data, so they are private however it is started.
    os.umask(0o077)
    process = Process(os.environ, sys.stdout, sys.stderr, os.getpid(), os.geteuid(), app.serve, offline)
    try:
        return run(argv, process)
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does. Without this, Python would complain when it flushes at exit.
        with suppress(BrokenPipeError):
            sys.stdout.close()
        return Exit.FAILED


def run(argv: Sequence[str] | None, process: Process) -> int:
    """Like `main`, for any process. Raises SystemExit(2) for wrong usage, as argparse does."""
    options = make_parser().parse_args(argv)
    console = Console(process.out, process.err, quiet=options.quiet, as_json=options.json)
    file = options.config or process.environment.get(FILE_VARIABLE) or None
    flags = dict(options.set)
    if options.verbose:
        flags.setdefault("log.level", "debug")
    sources = Sources(None if file is None else Path(file), process.environment, flags)
    command: Command = options.command
    try:
        return command(options, sources, console, process)
    except SettingsInvalid as error:
        return _fail(console, Exit.USAGE, "SETTINGS_INVALID", str(error))
    except CommandFailed as failed:
        is_usage = failed.code is ErrorCode.REQUEST_INVALID
        return _fail(console, Exit.USAGE if is_usage else Exit.FAILED, failed.code.name, failed.detail)
    except KeysInvalid as error:
        return _fail(console, Exit.USAGE, "KEYS_INVALID", str(error))
    except KeyboardInterrupt:
        return _fail(console, Exit.INTERRUPTED, "INTERRUPTED", "interrupted")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `command`."""
    parser = argparse.ArgumentParser(
        "uplinkd",
        description="Receives files from devices over links that break.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"uplinkd {version('uplinkd')}")
    parser.set_defaults(quiet=False, json=False, verbose=False)
    settings_options, output_options, tenant_options = _common()
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", parents=[settings_options], help="run the daemon")
    serve.add_argument("-v", "--verbose", action="store_true", help="log at level debug")
    serve.set_defaults(command=_serve)

    check = commands.add_parser(
        "check-config",
        parents=[settings_options, output_options],
        help="show the settings, and check that the daemon could start on them",
    )
    check.set_defaults(command=_check_config)

    status = commands.add_parser(
        "status", parents=[settings_options, output_options], help="show the daemon's state and problems"
    )
    status.set_defaults(command=_operating(lambda _: AskStatus()))

    _add_device_commands(commands.add_parser("device", help="enrol, list, disable and enable devices"))

    token = commands.add_parser(
        "token", parents=[settings_options, output_options, tenant_options], help="issue a bearer token"
    )
    token.add_argument("--operator", action="store_true", help="for an operator; without it, for a device")
    token.add_argument("--subject", metavar="NAME", help=f"the device, or the operator (default: {OPERATOR})")
    defaults = ", or ".join(f"{kind}: {' '.join(sorted(scopes))}" for kind, scopes in SCOPES_DEFAULT.items())
    token.add_argument(
        "--scope", action="append", default=[], choices=list(Scope), type=Scope, help=f"may be repeated ({defaults})"
    )
    token.add_argument(
        "--ttl", type=_seconds, metavar="TIME", help="lifetime, such as 90s, 12h, 30d (default: auth.token_ttl_s)"
    )
    token.set_defaults(command=_token)

    cleanup = commands.add_parser(
        "cleanup", parents=[settings_options, output_options], help="remove expired files and uploads now"
    )
    cleanup.add_argument("--dry-run", action="store_true", help="only count")
    cleanup.set_defaults(command=_operating(lambda options: Clean(dry_run=options.dry_run)))

    verify = commands.add_parser(
        "verify",
        parents=[settings_options, output_options, tenant_options],
        help="read complete files back and compare their digests",
    )
    verify.add_argument("--device", metavar="NAME", help="only this device's (default: all)")
    verify.set_defaults(command=_operating(lambda options: Verify(tenant=options.tenant, device=options.device)))
    return parser


def _common() -> tuple[argparse.ArgumentParser, ...]:
    """Options that commands share: for settings, for output, and for the tenant."""
    settings_options = argparse.ArgumentParser(add_help=False)
    settings_options.add_argument("--config", metavar="FILE", help=f"settings file (default: {FILE_VARIABLE}, or none)")
    settings_options.add_argument(
        "--set", action="append", default=[], type=_pair, metavar="KEY=VALUE", help="one setting; may be repeated"
    )
    output_options = argparse.ArgumentParser(add_help=False)
    output_options.add_argument("-q", "--quiet", action="store_true", help="print only secrets, tokens and problems")
    output_options.add_argument("--json", action="store_true", help="print one JSON object per line")
    tenant_options = argparse.ArgumentParser(add_help=False)
    tenant_options.add_argument("--tenant", metavar="NAME", help="the tenant")
    return settings_options, output_options, tenant_options


def _add_device_commands(parser: argparse.ArgumentParser) -> None:
    parents = list(_common())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    add = commands.add_parser("add", parents=parents, help="enrol a device; its secret is shown once")
    add.add_argument(
        "--replace",
        action="store_true",
        help="give an enrolled device a new secret; cuts the connections and tokens that came from the old one",
    )
    add.set_defaults(
        command=_operating(
            lambda options: AddDevice(tenant=options.tenant, device=options.name, replace=options.replace)
        )
    )

    list_ = commands.add_parser("list", parents=parents, help="list all devices, or those of one tenant")
    list_.set_defaults(command=_operating(lambda options: ListDevices(tenant=options.tenant)))

    disable = commands.add_parser("disable", parents=parents, help="refuse a device, and cut its connections")
    enable = commands.add_parser("enable", parents=parents, help="admit a disabled device again")
    for each, is_disable in ((disable, True), (enable, False)):
        each.set_defaults(command=_operating(_switching(is_disable)))
    for each in (add, disable, enable):
        each.add_argument("name", metavar="NAME", help="the device")


def _switching(disable: bool) -> Callable[[argparse.Namespace], Request]:
    return lambda options: SwitchDevice(tenant=options.tenant, device=options.name, disable=disable)


def _operating(request: Callable[[argparse.Namespace], Request]) -> Command:
    """The command that carries out the request built from the options."""

    def command(options: argparse.Namespace, sources: Sources, console: Console, process: Process) -> Exit:
        return _operate(request(options), sources, console, process)

    return command


def _operate(request: Request, sources: Sources, console: Console, process: Process) -> Exit:
    settings = sources.load()
    worst, shown = Exit.DONE, 0

    async def show_all() -> None:
        nonlocal worst, shown
        async with aclosing(
            operate(settings, request, process.offline, process.uid, SystemClock(), process.patience_s)
        ) as results:
            async for result in results:
                console.show(result, settings)
                worst, shown = max(worst, _exit(result)), shown + 1

    try:
        asyncio.run(show_all())
    except (DaemonSilent, DirectoryLocked) as error:
        advice = "wait until it has started or stopped; if it hangs, run systemctl restart uplinkd"
        return _fail(console, Exit.SILENT, "UNAVAILABLE", f"no daemon answers ({error}): {advice}")
    if isinstance(request, ListDevices) and not shown:
        console.note("no device is enrolled: uplinkd device add NAME")
    return worst


def _exit(result: Result) -> Exit:
    match result:
        case Checked():
            return Exit.DONE if result.verdict is Verdict.OK else Exit.DAMAGED
        case CleanupReport():
            return Exit.DONE if result.stopped is None else Exit.FAILED
        case DaemonStatus():
            return Exit.DONE if result.is_running and not result.problems else Exit.FAILED
        case _:
            return Exit.DONE


def _token(options: argparse.Namespace, sources: Sources, console: Console, process: Process) -> Exit:
    kind = Kind.OPERATOR if options.operator else Kind.DEVICE
    subject = options.subject or (OPERATOR if options.operator else None)
    if subject is None:
        raise CommandFailed(
            ErrorCode.REQUEST_INVALID, "name the device with --subject NAME, or use --operator for an operator's token"
        )
    scopes = frozenset(options.scope)
    request = IssueToken(tenant=options.tenant, subject=subject, kind=kind, scopes=scopes, ttl_s=options.ttl)
    return _operate(request, sources, console, process)


def _check_config(_: argparse.Namespace, sources: Sources, console: Console, __: Process) -> Exit:
    settings = sources.load()
    for each in effective(settings, sources.file, sources.environment, sources.flags):
        console.show(each, settings)
    found = list(findings(settings, SystemFiles(), SystemEntropy(), descriptors.limit()))
    for finding in found:
        console.show(finding, settings)
    return Exit.DONE if all(finding.is_good for finding in found) else Exit.USAGE


LOG_PATIENCE_S = 1.0
"""How long the end of the process waits for a reader of the log that has stalled."""


def _serve(_: argparse.Namespace, sources: Sources, console: Console, process: Process) -> Exit:
    settings = sources.load()
    gc.freeze()
    gc.set_threshold(*GARBAGE_OBJECTS)
    stream = LogStream(process.err)
    logs = configure(settings.log.level, settings.log.format, stream, SystemClock().wall_ms)
    stream.describe_dropped = lambda count: logs.line("log lines dropped: nobody reads the log", count=count)
    status = Exit.FAILED
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ended = runner.run(process.serve(settings, sources.load, process.environment, process.pid, logs))
        status = Exit.DONE if ended == 0 else Exit.FAILED
    except (DirectoryLocked, CatalogNewer, CatalogFailed, OSError) as error:
        stream.finish(LOG_PATIENCE_S)
        return _fail(console, Exit.FAILED, "UNAVAILABLE", str(error))
    finally:
        logs.close()
        is_written = stream.finish(LOG_PATIENCE_S)
    if not is_written:
        leave(status)
    return status


def _fail(console: Console, code: Exit, error: str, detail: str) -> Exit:
    console.failure(error, detail)
    return code


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as listen.port=7711")
    return key, value


def _seconds(text: str) -> float:
    parts = re.fullmatch(r"(\d{1,12})([smhd]?)", text, re.ASCII)
    if parts is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: use a whole number followed by s, m, h or d")
    return float(int(parts[1]) * SECONDS[parts[2]])
