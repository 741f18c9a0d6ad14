"""The handlers of a connection's streams: each event goes to the upload or the query that its number stands for."""

from typing import Protocol

from protocol import frames
from protocol.constants import STREAM_MAX, UploadState
from protocol.events import Acknowledged, Answered, Failed


class StreamHandler(Protocol):
    """Receives the events of one stream."""

    @property
    def awaits_end(self) -> bool:
        """Whether everything was sent, and only the server's last answer is missing."""
        ...

    def take(self, event: Acknowledged | Answered | Failed) -> None:
        """An event of the stream; must not raise. Failed, FINISHED, STATUS and OPENED COMPLETE are the last."""
        ...


class StreamHandlers:
    """The handlers by the number of their stream. Events of other numbers are discarded."""

    def __init__(self) -> None:
        self._handlers: dict[int, StreamHandler] = {}
        self._query = STREAM_MAX

    def __contains__(self, number: int) -> bool:
        return number in self._handlers

    @property
    def await_end(self) -> bool:
        """Whether any stream waits for its last answer alone."""
        return any(handler.awaits_end for handler in self._handlers.values())

    def add(self, number: int, handler: StreamHandler) -> None:
        """Send the events of an upload's stream to `handler`."""
        self._handlers[number] = handler

    def add_query(self, handler: StreamHandler) -> int:
        """Send the answer to a query to `handler`; returns the number to use for it."""
        # Counted down from the top, so that an ERROR for a query is not taken for that of an upload.
        number, self._query = self._query, self._query - 1 or STREAM_MAX
        self._handlers[number] = handler
        return number

    def remove(self, number: int) -> None:
        """Discard further events of the stream."""
        self._handlers.pop(number, None)

    def dispatch(self, event: Acknowledged | Answered | Failed) -> None:
        """Hand an event to its handler, which the last event of a stream removes."""
        match event:
            case (
                Failed()
                | Answered(frame=frames.Finished() | frames.Opened(state=UploadState.COMPLETE) | frames.Status())
            ):
                handler = self._handlers.pop(event.stream, None)
            case _:
                handler = self._handlers.get(event.stream)
        if handler is not None:
            handler.take(event)
