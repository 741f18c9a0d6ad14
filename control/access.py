"""Who asks, and what they may do."""

from aiohttp import hdrs, web

from control.errors import RequestError
from control.ports import Authenticator, Permission, Principal
from daemon.catalog.records import Upload
from protocol.errors import ErrorCode

PRINCIPAL = web.RequestKey("principal", Principal)

TOKEN_BYTES_MAX = 4096
"""Longer tokens are refused unread: real ones are below 1 KiB, and each is hashed for the cache."""


class Access:
    """Guards the routes. A device reaches its own files, an operator all of the tenant's."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def _identify(self, request: web.Request) -> Principal:
        principal = self._authenticator.authenticate(bearer_token(request))
        request[PRINCIPAL] = principal
        return principal

    def require(self, request: web.Request, *permissions: Permission) -> Principal:
        """The principal, if its token grants one of `permissions`. Raises RequestError, RequestRefused: 401, 403."""
        principal = self._identify(request)
        if principal.permissions.isdisjoint(permissions):
            raise RequestError(
                ErrorCode.FORBIDDEN,
                f"the token of {principal.subject!r} does not grant {' or '.join(permissions)}: "
                "ask for a token with that scope",
            )
        return principal

    def require_operator(self, request: web.Request, *permissions: Permission) -> Principal:
        """As `require`, and the token is an operator's."""
        principal = self.require(request, *permissions)
        if not principal.is_operator:
            raise RequestError(
                ErrorCode.FORBIDDEN, f"the token of {principal.subject!r} is a device's: ask for an operator's token"
            )
        return principal


def bearer_token(request: web.Request) -> str:
    """The token that a request carries. Raises RequestError, with status 401, when it carries none."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise RequestError(
            ErrorCode.UNAUTHENTICATED,
            "no bearer token: send `Authorization: Bearer …` with a token from POST /v1/token or the operator",
        )
    if len(token) > TOKEN_BYTES_MAX:
        raise RequestError(ErrorCode.UNAUTHENTICATED, f"the bearer token is longer than {TOKEN_BYTES_MAX} bytes")
    return token


def reaches(principal: Principal, device: str) -> bool:
    """Whether this principal may see the files of `device`; to others they look as if they did not exist."""
    return principal.is_operator or principal.subject == device


def no_such_file() -> RequestError:
    """The same answer for a file that does not exist and for one out of reach."""
    return RequestError(
        ErrorCode.RESOURCE_UNKNOWN, "there is no such file within this token's reach: check the id or the name"
    )


def reachable(principal: Principal, file: Upload | None) -> Upload:
    """`file` if it is there and within reach. Raises RequestError, with status 404."""
    if file is None or not reaches(principal, file.device):
        raise no_such_file()
    return file
