"""What is due between two sweeps of the server is done when it is due. PROTOCOL.md §12, §13."""

from protocol import frames
from protocol.errors import ErrorCode
from protocol.state import ConnectionState
from tests.support.device_site import SETTINGS, Listening, listening, on_uvloop, only
from tests.support.waiting import until

SOON_S = 0.1
"""How long before something is due the last sweep of a test looks."""


async def pass_without_sweep(site: Listening, seconds: float) -> None:
    """Sweep shortly before the time is over; then let it pass without another sweep."""
    await site.pass_s(seconds - SOON_S)
    site.site.bench.clock.pass_s(SOON_S)


@on_uvloop
class TestDueTimes:
    async def test_a_ping_comes_when_it_is_due(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await pass_without_sweep(site, SETTINGS.limits.keepalive_s)
            assert isinstance((await wire.next()).frame, frames.Ping)

    async def test_a_silent_device_is_given_up_when_it_is_due(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await pass_without_sweep(site, SETTINGS.limits.idle_timeout_s)
            assert isinstance((await wire.next()).frame, frames.Ping), "and nobody answers"
            error = (await wire.next()).frame
            assert isinstance(error, frames.Error)
            assert error.code == ErrorCode.IDLE_TIMEOUT

    async def test_a_token_expires_and_its_grace_ends_when_they_are_due(self) -> None:
        async with listening() as site:
            wire = await site.admitted(ttl_s=60)
            await pass_without_sweep(site, 60)
            await until(lambda: only(site).connection.state is ConnectionState.EXPIRED)
            await pass_without_sweep(site, SETTINGS.auth.grace_s)
            assert (await wire.hear(frames.Error)).code == ErrorCode.TOKEN_EXPIRED
