"""Waits for the work of other tasks."""

import asyncio
from collections.abc import Callable

from tests.support.deadlines import DEADLINE_S


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds. Raises TimeoutError."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - fakes set no event when their state changes
            await asyncio.sleep(0.001)
