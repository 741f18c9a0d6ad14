"""A daemon with tight limits, a device that sends bad input, and a bystander that must not notice."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio

from tests.support.deadlines import DEADLINE_S
from tests.support.raw_device import Wire
from tests.support.scene import Bystander, Scene, scene, undisturbed

CHUNK_BYTES_MAX = 64 * 1024
RANGES_MAX = 4
QUOTA_BYTES = 1_000_000

SETTINGS = {
    "LIMITS__CHUNK_BYTES_MAX": str(CHUNK_BYTES_MAX),
    "LIMITS__HANDSHAKE_TIMEOUT_S": str(DEADLINE_S),
    "LIMITS__RANGES_MAX": str(RANGES_MAX),
    "LIMITS__RATE_MIN_BYTES_PER_S": "64",
    "LIMITS__RATE_WINDOW_S": "0.5",
    "STORAGE__QUOTA_BYTES_PER_DEVICE": str(QUOTA_BYTES),
    "AUTH__LEEWAY_S": "0",
}

Nothing = AbstractAsyncContextManager[None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("bad-input") / "data", SETTINGS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bystander(live: Scene) -> AsyncIterator[Bystander]:
    async with Bystander.at(live) as uploading:
        yield uploading


@pytest.fixture
def nothing_stored(live: Scene, bystander: Bystander) -> Nothing:
    """A block around the bad input, which must store nothing and leave the bystander undisturbed."""
    return undisturbed(live, bystander)


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(live: Scene) -> AsyncIterator[Wire]:
    """A connection that has sent nothing yet."""
    async with await Wire.connect(live.address) as wire:
        yield wire


@pytest_asyncio.fixture(loop_scope="module")
async def wire(live: Scene) -> AsyncIterator[Wire]:
    """A device after WELCOME."""
    async with await live.admitted("victim") as wire:
        yield wire


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return str(request.node.name)[-200:]
