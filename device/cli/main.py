"""The console command `uplink`."""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TextIO

from device.cli import commands
from device.cli.exit_codes import ExitCode, exit_code, message
from device.cli.settings import HTTP_DEFAULT, SERVER_DEFAULT, TENANT_DEFAULT, ConnectionSettings, load_settings
from device.cli.terminal import Terminal
from device.exceptions import UplinkError

GIVE_UP_AFTER_S = 300.0
"""After five minutes without the link a person should look; unattended devices set more."""

_EPILOG = f"""\
environment:
  UPLINK_SERVER   HOST:PORT of the upload port (default {SERVER_DEFAULT})
  UPLINK_HTTP     URL of the control plane (default {HTTP_DEFAULT})
  UPLINK_DEVICE   the device's name
  UPLINK_TENANT   its tenant (default {TENANT_DEFAULT})
  UPLINK_SECRET   its secret, as `uplinkd device add` printed it
  UPLINK_TOKEN    a bearer token, instead of the secret
Flags win over the environment. A secret is never given as a flag, since others could see it.

exit codes:
  0    done
  1    wrong usage, or a local file cannot be read or written
  2    refused for good
  3    the server could not be reached, or did not answer in time
  4    authentication failed, or the right is missing
  5    not found
  6    the server has other content under the name
  7    the file changed while it was sent
  130  interrupted
"""

Command = Callable[[argparse.Namespace, ConnectionSettings, Terminal], Coroutine[None, None, ExitCode]]


class _Parser(argparse.ArgumentParser):
    """Exits with the documented code."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `command`."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        "uplink", description="Send files to uplinkd, and read them.", epilog=_EPILOG, formatter_class=layout
    )
    # No abbreviated flags: `--secret X` for `--secret-file X` would show the secret in the list of processes.
    add = partial(
        parser.add_subparsers(title="commands", required=True, metavar="COMMAND").add_parser,
        parents=[_common()],
        allow_abbrev=False,
    )

    send = add("send", help="send files; resumes what an earlier run began")
    send.add_argument("files", nargs="+", type=Path, metavar="FILE")
    send.add_argument("--name", help="name on the server (default: that of the file)")
    send.add_argument("--tag", metavar="HEX", help="identifies the content (default: made from it)")
    send.add_argument("--replace", action="store_true", help="replace other content that the server has under the name")
    send.set_defaults(command=commands.send)

    status = add("status", help="how far the server is with a name")
    status.add_argument("name", metavar="NAME")
    status.set_defaults(command=commands.status)

    list_ = add("list", help="list files, newest first")
    list_.add_argument("--state", action="append", default=[], help="only files in this state; may be repeated")
    list_.add_argument("--prefix", help="only files whose name starts with this")
    list_.set_defaults(command=commands.list_files)

    get = add("get", help="download a file; resumes from NAME.part")
    get.add_argument("name", metavar="NAME")
    get.add_argument("-o", "--output", type=Path, metavar="PATH", help="where to write it (default: NAME, here)")
    get.add_argument("--force", action="store_true", help="replace the local file if there is one")
    get.set_defaults(command=commands.get)

    remove = add("rm", help="delete a file, or cancel its upload")
    remove.add_argument("name", metavar="NAME")
    remove.set_defaults(command=commands.remove)
    return parser


def _common() -> _Parser:
    common = _Parser(add_help=False)
    common.add_argument("--server", metavar="HOST:PORT")
    common.add_argument("--http", metavar="URL")
    common.add_argument("--device", metavar="NAME")
    common.add_argument("--tenant", metavar="NAME")
    common.add_argument("--secret-file", type=Path, metavar="PATH", help="file with the device's secret")
    common.add_argument("--tls", action="store_true", help="TLS on the upload port")
    common.add_argument("--ca", type=Path, metavar="PATH", help="PEM to trust, here and for https; implies --tls")
    common.add_argument(
        "--give-up-after",
        type=float,
        default=GIVE_UP_AFTER_S,
        metavar="SECONDS",
        help="without any progress (default %(default)g)",
    )
    common.add_argument("--quiet", action="store_true", help="say nothing but failures")
    common.add_argument("--json", action="store_true", help="one JSON object a line")
    return common


def main(
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Run one command; the exit code."""
    options = make_parser().parse_args(arguments)
    terminal = Terminal(out or sys.stdout, err or sys.stderr, quiet=options.quiet, as_json=options.json)
    command: Command = options.command
    try:
        settings = load_settings(options, environment, getpass.getpass if sys.stdin.isatty() else None)
        return asyncio.run(command(options, settings, terminal))
    except UplinkError as error:
        terminal.failure(message(error))
        return exit_code(error)
    except BrokenPipeError:
        # The reader of our output closed it. Without this, Python reports an error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except KeyboardInterrupt:
        terminal.failure("interrupted; what was acknowledged is safe: the same command resumes from there")
        return ExitCode.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
