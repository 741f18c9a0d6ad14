"""What bad input gets: a clear error with its code and action, on an upload or before there is one."""

from protocol import frames
from protocol.constants import Action
from protocol.errors import ErrorCode
from tests.support.raw_device import Wire, open_request

DATA = b"0123456789"
"""What an upload has before something goes wrong with it."""


async def refused(wire: Wire, code: ErrorCode) -> frames.Refused:
    """The handshake's refusal, after which the server ends the connection."""
    answer = await wire.hear(frames.Refused)
    assert (answer.code, answer.action) == (code, code.action)
    await wire.ended()
    return answer


async def failed(wire: Wire, code: ErrorCode, stream: int = 0) -> frames.Error:
    """The ERROR, after which the server ends the connection if it is on stream 0."""
    answer = await wire.hear(frames.Error, stream)
    assert (answer.code, answer.action) == (code, code.action)
    assert answer.text
    assert bool(answer.wait_ms) is (code.action is Action.WAIT)
    if stream == 0:
        await wire.ended()
    return answer


async def lives_on(wire: Wire) -> None:
    """The connection takes further requests."""
    wire.say(frames.Query("anything"), 9)
    await wire.hear(frames.Status, 9)


async def begun(wire: Wire, name: str, size: int = 100) -> None:
    """An upload on stream 1 of which DATA is durable."""
    await wire.open(1, open_request(name, size))
    await wire.upload(1, 0, DATA)
