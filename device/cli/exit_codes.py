"""Failures for the shell: the exit code of each, and what to do about it."""

from enum import IntEnum

from device.cli.control_plane import ControlPlaneError, DigestError, NoAnswerError
from device.exceptions import ContentChanged, SourceChanged, UnreachableError, UplinkError, UploadFailed, code_name
from protocol.constants import Action
from protocol.errors import ErrorCode


class ExitCode(IntEnum):
    """The exit codes of `uplink`."""

    OK = 0
    USAGE = 1
    REFUSED = 2
    UNREACHABLE = 3
    AUTHENTICATION = 4
    NOT_FOUND = 5
    CONTENT_CHANGED = 6
    SOURCE_CHANGED = 7
    INTERRUPTED = 130


_NOT_FOUND = frozenset({ErrorCode.NOT_FOUND, ErrorCode.GONE})
_AUTHENTICATION = frozenset(
    {
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.TOKEN_EXPIRED,
        ErrorCode.FORBIDDEN,
        ErrorCode.DEVICE_DISABLED,
        ErrorCode.CREDENTIAL_UNSUPPORTED,
    }
)
_HINTS = {
    Action.OPEN_ANEW: "give --replace to replace what the server has, or --name for another name",
    Action.LEAVE: "another sender has taken this upload over; stop one of the two",
    Action.REAUTHENTICATE: "check the device's name, tenant, and secret or token",
    Action.GIVE_UP: "ask the server's operator if the message does not say what to change",
}


def exit_code(error: UplinkError) -> ExitCode:
    """The exit code for an error."""
    match error:
        case UnreachableError() | NoAnswerError() | UploadFailed(code=0):
            return ExitCode.UNREACHABLE
        case DigestError():
            return ExitCode.REFUSED
        case ContentChanged():
            return ExitCode.CONTENT_CHANGED
        case SourceChanged():
            return ExitCode.SOURCE_CHANGED
        case UploadFailed(code=code):
            return _by_code(code)
        case ControlPlaneError(status=401 | 403):
            return ExitCode.AUTHENTICATION
        case ControlPlaneError(status=404 | 410):
            return ExitCode.NOT_FOUND
        case ControlPlaneError(status=429 | 502 | 503 | 504):
            return ExitCode.UNREACHABLE
        case ControlPlaneError(code=code):
            return _by_code(code)
    return ExitCode.USAGE


def message(error: UplinkError) -> str:
    """What happened, and what to do."""
    match error:
        case ContentChanged(code=code, detail=detail):
            return f"{code_name(code)}: {detail}; {_HINTS[Action.OPEN_ANEW]}"
        case SourceChanged(detail=detail):
            return f"{detail}; once nothing writes to it, send it again with --replace"
        case UploadFailed(action=action) if action in _HINTS:
            return f"{error}; {_HINTS[action]}"
        case UnreachableError():
            return f"{error}; what was acknowledged is safe: the same command resumes from there"
        case ControlPlaneError(status=401 | 403):
            return f"{error}; {_HINTS[Action.REAUTHENTICATE]}"
    return str(error)


def _by_code(code: int) -> ExitCode:
    if code in _AUTHENTICATION:
        return ExitCode.AUTHENTICATION
    return ExitCode.NOT_FOUND if code in _NOT_FOUND else ExitCode.REFUSED
