"""A replacement that ended before it was complete: the name stands for the earlier file again. PROTOCOL.md §6.3."""

import pytest

from device.exceptions import ContentChanged, UnreachableError, UploadFailed
from device.transfer import REPLACEMENTS_MAX
from protocol.constants import Disposition
from protocol.errors import ErrorCode
from protocol.events import ServerEvent
from tests.device.conftest import Uplinks
from tests.support.content import DATA
from tests.support.fake_answers import Stored
from tests.support.fake_server import FakeServer, Hook, Script, Session, breaks_stream, deque_of
from tests.support.fake_time import FakeTime

NEW = DATA[::-1]
"""Of the same size as DATA."""


async def earlier_file(server: FakeServer, uplinks: Uplinks, *, identify: bool = True) -> Stored:
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin", identify=identify)
    return server.files["log.bin"]


def loses_replacement(earlier: Stored) -> Hook:
    """The replacement ends, and its stream with a wait of 0.7 s: the next OPEN finds the earlier file."""

    def hook(session: Session, event: ServerEvent) -> None:
        session.server.files["log.bin"] = earlier
        breaks_stream(ErrorCode.STORAGE_FAILED, 700)(session, event)

    return hook


def completes_unheard(session: Session, event: ServerEvent) -> None:
    """The upload completes, but the connection breaks before FINISHED is sent."""
    session.answer(event)
    session.cut()


@pytest.mark.parametrize("moment", ["chunks", "finishes"])
@pytest.mark.parametrize(
    ("disposition", "identify"),
    [(Disposition.RESUME_OR_CREATE, True), (Disposition.REPLACE, True), (Disposition.REPLACE, False)],
)
async def test_a_lost_replacement_is_made_again(
    disposition: Disposition, moment: str, identify: bool, server: FakeServer, uplinks: Uplinks
) -> None:
    earlier = await earlier_file(server, uplinks, identify=identify)
    script = Script()
    getattr(script, moment).extend([loses_replacement(earlier)] * 2)
    server.scripts.append(script)
    async with uplinks() as uplink:
        sent = await uplink.send(NEW, "log.bin", disposition=disposition, replace=True, identify=identify)
    stored = server.files["log.bin"]
    assert (bytes(stored.data), sent.upload_id) == (NEW, stored.id)
    assert [request.disposition for request in stored.opens] == [Disposition.REPLACE]


async def test_only_the_first_replacement_does_not_wait(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    earlier = await earlier_file(server, uplinks)
    server.scripts.append(Script(chunks=deque_of(*[loses_replacement(earlier)] * 2)))
    async with uplinks() as uplink:
        await uplink.send(NEW, "log.bin", replace=True)
    assert time.slept == [0.0, 1.1, 0.8, 2.3, 3.2]


async def test_replacements_have_a_limit(server: FakeServer, uplinks: Uplinks) -> None:
    earlier = await earlier_file(server, uplinks)
    script = Script(chunks=deque_of(*[loses_replacement(earlier)] * (REPLACEMENTS_MAX + 1)))
    server.scripts.append(script)
    async with uplinks() as uplink:
        with pytest.raises(ContentChanged):
            await uplink.send(NEW, "log.bin", replace=True)
    assert len(script.chunks) == 1
    assert server.files["log.bin"] is earlier


async def test_replacements_use_up_the_patience_of_the_caller(server: FakeServer, uplinks: Uplinks) -> None:
    earlier = await earlier_file(server, uplinks)
    script = Script(chunks=deque_of(*[loses_replacement(earlier)] * REPLACEMENTS_MAX))
    server.scripts.append(script)
    async with uplinks(attempts_max=3) as uplink:
        with pytest.raises(UnreachableError, match="3 attempts"):
            await uplink.send(NEW, "log.bin", replace=True)
    assert len(script.chunks) == REPLACEMENTS_MAX - 1


async def test_a_lost_replacement_is_an_error_where_the_caller_does_not_allow_to_replace(
    server: FakeServer, uplinks: Uplinks
) -> None:
    earlier = await earlier_file(server, uplinks)
    server.scripts.append(Script(chunks=deque_of(loses_replacement(earlier))))
    async with uplinks() as uplink:
        with pytest.raises(ContentChanged):
            await uplink.send(NEW, "log.bin", disposition=Disposition.REPLACE)


@pytest.mark.parametrize("identify", [True, False])
async def test_a_replacement_that_completed_unheard_is_success(
    identify: bool, server: FakeServer, uplinks: Uplinks
) -> None:
    await earlier_file(server, uplinks, identify=identify)
    server.scripts.append(Script(finishes=deque_of(completes_unheard)))
    async with uplinks() as uplink:
        sent = await uplink.send(NEW, "log.bin", disposition=Disposition.REPLACE, replace=True, identify=identify)
    stored = server.files["log.bin"]
    assert (bytes(stored.data), sent.upload_id) == (NEW, stored.id)
    assert [request.disposition for request in stored.opens] == [Disposition.REPLACE, Disposition.RESUME_OR_CREATE]


async def test_the_same_content_of_another_upload_is_success(server: FakeServer, uplinks: Uplinks) -> None:
    same = await earlier_file(server, uplinks)
    server.scripts.append(Script(chunks=deque_of(loses_replacement(same))))
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin", disposition=Disposition.REPLACE, replace=True)
    assert (server.files["log.bin"], sent.upload_id) == (same, same.id)


async def test_the_content_of_another_sender_is_replaced(server: FakeServer, uplinks: Uplinks) -> None:
    await earlier_file(server, uplinks)
    async with uplinks() as other:
        await other.send(DATA[1:], "another name")
    server.scripts.append(Script(chunks=deque_of(loses_replacement(server.files["another name"]))))
    async with uplinks() as uplink:
        await uplink.send(NEW, "log.bin", replace=True)
    assert server.files["log.bin"].data == NEW


async def test_a_replacement_that_completed_with_other_content_is_not_replaced(
    server: FakeServer, uplinks: Uplinks
) -> None:
    """Another sender resumed and finished it: to replace it would destroy what that one sent."""
    await earlier_file(server, uplinks, identify=False)

    def completes_otherwise(session: Session, event: ServerEvent) -> None:
        stored = session.server.files["log.bin"]
        session.answer(event)
        stored.data[:] = DATA
        session.cut()

    server.scripts.append(Script(finishes=deque_of(completes_otherwise)))
    async with uplinks() as uplink:
        with pytest.raises(ContentChanged):
            await uplink.send(NEW, "log.bin", disposition=Disposition.REPLACE, replace=True)
    assert server.files["log.bin"].data == DATA


async def test_a_second_digest_mismatch_is_final(server: FakeServer, uplinks: Uplinks) -> None:
    """The bytes are damaged somewhere: to send them all again and again would not help."""
    await earlier_file(server, uplinks)
    server.scripts.append(Script(finishes=deque_of(*[breaks_stream(ErrorCode.DIGEST_MISMATCH)] * 2)))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="DIGEST_MISMATCH"):
            await uplink.send(NEW, "log.bin", replace=True)
