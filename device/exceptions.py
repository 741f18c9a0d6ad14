"""What the library raises, and the two ways in which work on a connection is interrupted."""

from dataclasses import dataclass

from protocol import frames
from protocol.constants import Action
from protocol.errors import ErrorCode

_CODES = {int(code): code for code in ErrorCode}


class UplinkError(Exception):
    """Base of all exceptions that callers of the library handle."""


class UploadFailed(UplinkError):
    """The server refused for good. PROTOCOL.md §16.

    `code` is the registry's (0 if the server gave none), `detail` its explanation, `action` what the caller can do:
    OPEN_ANEW (allow replacing, or use another name), LEAVE (another sender took the upload over), REAUTHENTICATE (get
    another credential), GIVE_UP.
    """

    def __init__(self, code: int, detail: str, action: Action) -> None:
        super().__init__(f"{code_name(code)}: {detail}" if code else detail)
        self.code = code
        self.detail = detail
        self.action = action


class ContentChanged(UploadFailed):
    """The server has other content under the name, and keeps it.

    Send with `replace=True` to replace it, or use another name.
    """

    def __str__(self) -> str:
        return f"{super().__str__()}; send with replace=True to replace it, or use another name"


class UnreachableError(UplinkError):
    """There was no progress within the attempts, or the time, that the caller allows. The upload can be resumed."""


class SourceError(UplinkError):
    """The source cannot be read."""


class SourceChanged(SourceError):
    """The source is not what it was when it was identified; no mix of both becomes a complete file.

    Send it again once nothing writes to it. Use `replace=True`, as the server may still have a part of what it was.
    `detail` is what was found.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail}; once nothing writes to it, send it again with replace=True"


class CredentialError(UplinkError):
    """There is no credential now. Token callbacks raise it for trouble that may pass; the upload waits."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended. `code` is 0 if the server gave none; `final`: reconnecting would not help."""

    detail: str
    action: Action = Action.REOPEN
    code: int = 0
    wait_ms: int = 0
    refused: bool = False
    final: bool = False


class LinkOver(Exception):
    """The connection is over; work continues on the next one."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.detail)
        self.ending = ending


class StreamOver(Exception):
    """The server ended one stream with this error."""

    def __init__(self, error: frames.Error) -> None:
        super().__init__(error.text)
        self.error = error


def upload_failure(code: int, detail: str, action: Action) -> UploadFailed:
    """The exception for an error of the server."""
    kind = ContentChanged if code == ErrorCode.CONTENT_CHANGED else UploadFailed
    return kind(code, detail, action)


def code_name(code: int) -> str:
    """The registry's name of the code; its number if the server is newer than this registry."""
    return _CODES[code].name if code in _CODES else f"error 0x{code:04x}"


def explain(code: int, text: str | None) -> str:
    """The server's text, else the registry's summary."""
    if text:
        return text
    return _CODES[code].summary if code in _CODES else "the server gave no reason"
