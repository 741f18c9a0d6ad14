"""What callers of the library have to expect, and the two ways in which work on a connection is interrupted."""

from dataclasses import dataclass

from protocol import frames
from protocol.constants import Action
from protocol.errors import ErrorCode

_CODES = {int(code): code for code in ErrorCode}


class UplinkError(Exception):
    """Base of everything that the library raises on purpose."""


class UploadFailed(UplinkError):
    """The server refused for good. PROTOCOL.md §16.

    `code` is that of the registry (0 when the server gave none), `detail` its explanation, `action` what is left to
    the caller: OPEN_ANEW (allow replacing, or take another name), LEAVE (another sender took the upload over),
    REAUTHENTICATE (get another credential), GIVE_UP.
    """

    def __init__(self, code: int, detail: str, action: Action) -> None:
        super().__init__(f"{code_name(code)}: {detail}" if code else detail)
        self.code = code
        self.detail = detail
        self.action = action


class UnreachableError(UplinkError):
    """Nothing went on for as many attempts, or as long, as the caller allows. The upload may be resumed later."""


class SourceError(UplinkError):
    """The bytes to be sent cannot be read, or are fewer than they were."""


class CredentialError(UplinkError):
    """No credential can be had now; raised by token callbacks for trouble that may pass. The upload waits."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended. `code` is 0 where the server said nothing; `final`: no other connection would help."""

    detail: str
    action: Action = Action.REOPEN
    code: int = 0
    wait_ms: int = 0
    refused: bool = False
    final: bool = False


class LinkOver(Exception):
    """The connection is over; whoever works on it goes on with the next one."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.detail)
        self.ending = ending


class StreamOver(Exception):
    """The server ended one stream by this error."""

    def __init__(self, error: frames.Error) -> None:
        super().__init__(error.text)
        self.error = error


def code_name(code: int) -> str:
    """The registry's name of the code; its number where the server is newer than this registry."""
    return _CODES[code].name if code in _CODES else f"error 0x{code:04x}"


def explain(code: int, text: str | None) -> str:
    """The server's text, else the registry's summary."""
    if text:
        return text
    return _CODES[code].summary if code in _CODES else "the server gave no reason"
