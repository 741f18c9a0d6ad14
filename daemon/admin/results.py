"""Results of commands, and their failure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from daemon.catalog.records import State
from daemon.identity.tokens import Kind, Scope
from protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class DeviceAdded:
    """An enrolled device. Its secret is stored nowhere, and cannot be shown again."""

    tenant: str
    device: str
    secret: str = field(repr=False)
    is_disabled: bool


@dataclass(frozen=True, slots=True)
class DeviceListed:
    """A device. It need not be enrolled: disabling it refuses its tokens. Times are Unix milliseconds."""

    tenant: str
    device: str
    is_enrolled: bool
    created_ms: int
    disabled_ms: int | None


@dataclass(frozen=True, slots=True)
class DeviceSwitched:
    """The device is now disabled or enabled; `changed` is False if it already was."""

    tenant: str
    device: str
    is_disabled: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """A bearer token, its subject, and how long it lasts."""

    tenant: str
    subject: str
    kind: Kind
    scopes: tuple[Scope, ...]
    expires_in_s: float
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The daemon's state. `problems` is empty when it can receive and serve files, and when it does not run.

    `uploads` counts uploads by state; it is empty while the catalog fails.
    """

    is_running: bool
    version: str
    uploads: Mapping[State, int]
    problems: tuple[str, ...]


class CommandFailed(Exception):
    """A command failed: the registry's code, and a text that says what happened, to what, and what to do."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
