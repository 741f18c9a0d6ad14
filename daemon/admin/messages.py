"""Messages between the command line and the daemon: one JSON object per line, `{"type": …, "value": {…}}`.

The command line sends one request. The daemon sends Greeting, any number of results, then End or Failed; without
either of these, the answer was cut short.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from daemon.admin.results import (
    CommandFailed,
    DaemonStatus,
    DeviceAdded,
    DeviceListed,
    DeviceSwitched,
    TokenIssued,
)
from daemon.catalog.records import CleanupReport
from daemon.identity.tokens import Kind, Scope
from daemon.upkeep.verify import Checked, VerifyProgress
from protocol.errors import ErrorCode

LINE_BYTES_MAX = 64 * 1024
"""The longest line of ours holds a name of 255 bytes, each escaped, or a token of some kilobytes."""


class _Fields(BaseModel):
    """Fields of a request. An unknown field is refused, since it could be as important as `dry_run`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AddDevice(_Fields):
    """See Commands.add_device."""

    tenant: str | None
    device: str
    replace: bool = False


class ListDevices(_Fields):
    """See Commands.list_devices."""

    tenant: str | None


class SwitchDevice(_Fields):
    """See Commands.disable and enable."""

    tenant: str | None
    device: str
    disable: bool


class IssueToken(_Fields):
    """See Commands.token."""

    tenant: str | None
    subject: str
    kind: Kind
    scopes: frozenset[Scope]
    ttl_s: float | None


class Clean(_Fields):
    """See Commands.cleanup."""

    dry_run: bool


class Verify(_Fields):
    """See Commands.verify."""

    tenant: str | None
    device: str | None


class AskStatus(_Fields):
    """See Commands.status."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The daemon is alive and reads requests."""

    version: str


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """CommandFailed, with the code's name."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class EndOfResults:
    """All results were sent."""


Request: TypeAlias = AddDevice | ListDevices | SwitchDevice | IssueToken | Clean | Verify | AskStatus
Result: TypeAlias = (
    DeviceAdded | DeviceListed | DeviceSwitched | TokenIssued | CleanupReport | Checked | VerifyProgress | DaemonStatus
)
Answer: TypeAlias = Greeting | Result | CommandRefused | EndOfResults

_REQUESTS: Mapping[str, type[Request]] = {
    each.__name__: each for each in (AddDevice, ListDevices, SwitchDevice, IssueToken, Clean, Verify, AskStatus)
}
_ANSWERS: Mapping[str, TypeAdapter[Answer]] = {
    each.__name__: TypeAdapter(each)
    for each in (
        Greeting,
        DeviceAdded,
        DeviceListed,
        DeviceSwitched,
        TokenIssued,
        CleanupReport,
        Checked,
        VerifyProgress,
        DaemonStatus,
        CommandRefused,
        EndOfResults,
    )
}


def write_request(request: Request) -> bytes:
    """The request's line."""
    return _line(type(request).__name__, request.model_dump_json())


def read_request(line: bytes) -> Request:
    """The request that a line holds. Raises CommandFailed."""
    name, value = _parsed(line)
    kind = _REQUESTS.get(name)
    if kind is None:
        raise _mismatch(f"request {name!r} is unknown")
    try:
        return kind.model_validate_json(value)
    except ValidationError as error:
        # Not chained, and without the values: they may be secrets sent by mistake.
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise _mismatch(f"request {name}: {faults}") from None


def write_answer(answer: Answer) -> bytes:
    """The answer's line."""
    return _line(type(answer).__name__, to_json(answer))


def read_answer(line: bytes) -> Answer:
    """The answer that a line holds. Raises CommandFailed."""
    name, value = _parsed(line)
    adapter = _ANSWERS.get(name)
    if adapter is None:
        raise _mismatch(f"answer {name!r} is unknown")
    try:
        return adapter.validate_json(value)
    except ValidationError as error:
        raise _mismatch(f"answer {name} has the wrong fields") from error


def to_json(answer: Answer) -> str:
    """The answer's fields as one JSON object."""
    return _ANSWERS[type(answer).__name__].dump_json(answer).decode()


def _line(name: str, value: str) -> bytes:
    return f'{{"type":"{name}","value":{value}}}\n'.encode()


def _parsed(line: bytes) -> tuple[str, str]:
    """The type's name, and the value as JSON again, since pydantic validates JSON by other rules than objects."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _mismatch("the line is not JSON") from error
    if not isinstance(message, dict) or message.keys() != {"type", "value"}:
        raise _mismatch("the line is not an object with a type and a value")
    return str(message["type"]), json.dumps(message["value"])


def _mismatch(what: str) -> CommandFailed:
    return CommandFailed(
        ErrorCode.REQUEST_INVALID, f"{what}: command line and daemon may be of different versions; restart the daemon"
    )
