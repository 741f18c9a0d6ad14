"""Events reach the handler of their stream."""

import pytest

from device.streams import StreamHandlers
from protocol import frames
from protocol.constants import STREAM_MAX, Action, UploadState
from protocol.errors import ErrorCode
from protocol.events import Acknowledged, Answered, Failed

Event = Acknowledged | Answered | Failed

ACK = Acknowledged(1, 5, ())


class Recorder:
    """Keeps what it gets."""

    def __init__(self, *, awaits_end: bool = False) -> None:
        self.awaits_end = awaits_end
        self.taken: list[Event] = []

    def take(self, event: Event) -> None:
        self.taken.append(event)


def test_each_event_reaches_the_handler_of_its_stream() -> None:
    streams, first, second = StreamHandlers(), Recorder(), Recorder()
    streams.add(1, first)
    streams.add(2, second)
    for event in (ACK, Acknowledged(2, 7, ()), Acknowledged(99, 1, ())):
        streams.dispatch(event)
    assert (first.taken, second.taken) == ([ACK], [Acknowledged(2, 7, ())])


@pytest.mark.parametrize(
    "last",
    [
        Failed(1, frames.Error(ErrorCode.FENCED, Action.LEAVE, 0)),
        Answered(1, frames.Finished(1, 5, 0)),
        Answered(1, frames.Opened(1, UploadState.COMPLETE, UploadState.NONE, 5, 0)),
        Answered(1, frames.Status(0, UploadState.NONE, 0)),
    ],
)
def test_the_last_event_removes_the_handler(last: Event) -> None:
    streams, handler = StreamHandlers(), Recorder()
    streams.add(1, handler)
    for event in (last, ACK):
        streams.dispatch(event)
    assert handler.taken == [last]
    assert 1 not in streams


def test_a_removed_handler_gets_nothing() -> None:
    streams, handler = StreamHandlers(), Recorder()
    streams.add(1, handler)
    streams.remove(1)
    streams.remove(1)
    streams.dispatch(ACK)
    assert handler.taken == []


def test_queries_are_numbered_from_the_top_and_never_zero() -> None:
    streams = StreamHandlers()
    numbers = [streams.add_query(Recorder()) for _ in range(STREAM_MAX + 1)]
    assert numbers[:2] == [STREAM_MAX, STREAM_MAX - 1]
    assert numbers[-2:] == [1, STREAM_MAX]


def test_one_stream_that_awaits_its_end_is_enough() -> None:
    streams = StreamHandlers()
    streams.add(1, Recorder())
    assert not streams.await_end
    streams.add(2, Recorder(awaits_end=True))
    assert streams.await_end
