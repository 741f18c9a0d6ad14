"""Random frames and flipped bits: the daemon logs no traceback, ends every connection, and is well afterwards.

A run prints its seed. FUZZ_SEED repeats one, FUZZ_SECONDS lets each test run longer.
"""

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from protocol.handshake import read_secret
from tests.support.deadlines import DEADLINE_S
from tests.support.fuzzing import CONTENT, FrameMaker, Session, play, play_all, secret_session, token_session
from tests.support.scene import Scene, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
"""Of random frames."""

AT_ONCE = 16

BITS_MAX = 600
"""Flipped in each recorded session: one of every byte, and more where there is room."""


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbits(32))
    print(f"FUZZ_SEED={seed}")
    return random.Random(seed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """At its end, the daemon must stop in order, without an error or a traceback in its log."""
    # A HELLO whose length grew never ends, and its device waits for the answer.
    settings = {"LIMITS__HANDSHAKE_TIMEOUT_S": "2"}
    async with scene(tmp_path_factory.mktemp("fuzz") / "data", settings) as running:
        yield running


async def is_well(live: Scene) -> None:
    """The daemon is ready, has no connection left, and takes a whole upload."""
    assert (await live.http.get("/readyz", token=None)).status == 200

    async def connections() -> float:
        text = (await live.http.get("/metrics", token=None)).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("uplinkd_connections{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async with asyncio.timeout(DEADLINE_S):
        while await connections():  # noqa: ASYNC110 - the daemon is another process
            await asyncio.sleep(0.01)
    name = f"after-{time.monotonic_ns()}"
    await play(live.address, token_session(live.token("healthy"), name))
    stored = await live.http.get(f"/v1/devices/healthy/files/{name}/content", token=live.operator)
    assert stored.body == CONTENT


async def test_random_frames(live: Scene, rng: random.Random) -> None:
    tokens = (live.token("fuzzed"), live.token("another"), live.token("fuzzed", exp=int(time.time()) - 3600))

    def sessions() -> Iterator[tuple[Session, None]]:
        until_s = time.monotonic() + SECONDS
        while time.monotonic() < until_s:
            maker = FrameMaker(rng, tokens, tuple(f"name-{number}" for number in range(4)))
            yield Session(maker.session(), lambda _: b""), None

    assert await play_all(live.address, sessions(), AT_ONCE) > AT_ONCE
    await is_well(live)


def flips(session: Session, rng: random.Random) -> list[int]:
    """A bit of each byte, and others at random, in random order."""
    each_byte = [bit + rng.randrange(8) for bit in session.bits[::8]]
    others = rng.sample(session.bits, max(0, min(len(session.bits), BITS_MAX) - len(each_byte)))
    return rng.sample([*each_byte, *others], len(each_byte) + len(others))


async def test_a_bit_flipped_at_each_offset_of_a_session_with_a_token(live: Scene, rng: random.Random) -> None:
    token = live.token("flipped")
    bits = flips(token_session(token, "file-00000"), rng)
    played = ((token_session(token, f"file-{number:05}"), bit) for number, bit in enumerate(bits))
    assert await play_all(live.address, played, AT_ONCE) == len(bits)
    await is_well(live)


async def test_a_bit_flipped_at_each_offset_of_a_session_with_a_secret(live: Scene, rng: random.Random) -> None:
    secret = read_secret((await live.daemon.command("device", "add", "prover", "--quiet")).strip())
    bits = flips(secret_session("prover", secret, "file-00000"), rng)
    played = ((secret_session("prover", secret, f"file-{number:05}"), bit) for number, bit in enumerate(bits))
    assert await play_all(live.address, played, AT_ONCE) == len(bits)
    await is_well(live)
