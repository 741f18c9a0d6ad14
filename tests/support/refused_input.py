"""The answers to bad input: an error with its code and action, during an upload or before one."""

from protocol import frames
from protocol.constants import Action
from protocol.errors import ErrorCode
from tests.support.raw_device import Wire, open_request

DATA = b"0123456789"
"""The bytes that an upload has before bad input arrives."""


async def refused(wire: Wire, code: ErrorCode) -> frames.Refused:
    """Read the handshake's refusal, after which the server must end the connection."""
    answer = await wire.hear(frames.Refused)
    assert (answer.code, answer.action) == (code, code.action)
    await wire.ended()
    return answer


async def failed(wire: Wire, code: ErrorCode, stream: int = 0) -> frames.Error:
    """Read the ERROR. If it is on stream 0, the server must then end the connection."""
    answer = await wire.hear(frames.Error, stream)
    assert (answer.code, answer.action) == (code, code.action)
    assert answer.text
    assert bool(answer.wait_ms) is (code.action is Action.WAIT)
    if stream == 0:
        await wire.ended()
    return answer


async def lives_on(wire: Wire) -> None:
    """Check that the connection accepts further requests."""
    wire.say(frames.Query("anything"), 9)
    await wire.hear(frames.Status, 9)


async def begun(wire: Wire, name: str, size: int = 100) -> None:
    """Start an upload on stream 1, and make DATA durable."""
    await wire.open(1, open_request(name, size))
    await wire.upload(1, 0, DATA)
