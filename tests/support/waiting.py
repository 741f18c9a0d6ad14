"""Waiting for what another task does."""

import asyncio
from collections.abc import Callable

from tests.support.deadlines import DEADLINE_S


async def until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds. Raises TimeoutError."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is the state of fakes, which set no event
            await asyncio.sleep(0.001)
