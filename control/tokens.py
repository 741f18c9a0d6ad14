"""POST /v1/token: a device proves its secret and gets a bearer token. The secret is never logged nor echoed."""

import base64
import binascii

from aiohttp import hdrs, web

from control.bodies import json_response, read_object
from control.errors import RequestError
from control.ports import TokenExchange
from protocol.errors import ErrorCode

_MEMBERS = frozenset({"tenant", "device", "secret"})


class TokenRoutes:
    """Exchanges device secrets."""

    def __init__(self, exchange: TokenExchange) -> None:
        self._exchange = exchange

    async def issue(self, request: web.Request) -> web.StreamResponse:
        """The answer has the members of RFC 6749, section 5.1; its lifetime is in seconds."""
        members = await read_object(request, _MEMBERS)
        basic = request.headers.get(hdrs.AUTHORIZATION)
        if basic is not None:
            if members.keys() & {"device", "secret"}:
                raise RequestError(
                    ErrorCode.REQUEST_INVALID, "device and secret are in the header and in the body: send one"
                )
            device, secret = _basic_credentials(basic)
        else:
            device, secret = _text(members, "device"), _text(members, "secret")
        tenant = _text(members, "tenant") if "tenant" in members else None
        issued = await self._exchange.exchange(tenant, device, secret)
        return json_response({"access_token": issued.token, "token_type": "Bearer", "expires_in": issued.expires_in_s})


def _text(members: dict[str, object], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise RequestError(ErrorCode.REQUEST_INVALID, f"{name}: send it as a non-empty text, in JSON or by HTTP Basic")
    return value


def _basic_credentials(header: str) -> tuple[str, str]:
    """Device and secret of RFC 7617. A name may have colons, a secret has none: split at the last one."""
    scheme, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    device, colon, secret = text.rpartition(":")
    if scheme.lower() != "basic" or not colon or not device or not secret:
        raise RequestError(
            ErrorCode.REQUEST_INVALID,
            "the Authorization header is not HTTP Basic with the device's name and its secret",
        )
    return device, secret
