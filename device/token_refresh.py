"""Offers a new token before the one in force expires. PROTOCOL.md §13."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

from device.credentials import Credentials
from device.exceptions import CredentialError
from device.timing import Timing
from protocol.constants import AUTHORITY_UNLIMITED_S

REFRESH_FRACTION = 2 / 3
"""When to offer the next token, as a part of the time that the present one has left. R13.1"""

RETRY_S = 5.0
"""How soon to ask for a token again after a CredentialError."""


class TokenRefresh:
    """`offer` sends REFRESH. `run` must be awaited by an owner."""

    def __init__(self, credentials: Credentials, timing: Timing, offer: Callable[[str], None]) -> None:
        self._credentials = credentials
        self._timing = timing
        self._offer = offer
        self._granted: asyncio.Queue[int] = asyncio.Queue()

    def granted(self, authority_s: int) -> None:
        """WELCOME or REFRESHED gave this many seconds of authority."""
        self._granted.put_nowait(authority_s)

    async def run(self) -> NoReturn:
        """Refresh until cancelled."""
        while True:
            authority_s = await self._granted.get()
            if authority_s == AUTHORITY_UNLIMITED_S or not self._credentials.refreshable:
                continue
            await self._timing.sleep(authority_s * REFRESH_FRACTION)
            self._offer(await self._new_token())

    async def _new_token(self) -> str:
        while True:
            try:
                return await self._credentials.refresh()
            except CredentialError:
                # The token in force may outlast the trouble; if not, the server says so.
                await self._timing.sleep(RETRY_S)
