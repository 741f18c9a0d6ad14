"""What goes wrong inside the protocol room, as exceptions that carry the registry's code."""

from protocol.errors import ErrorCode


class ProtocolError(Exception):
    """The peer broke the protocol. `code` is what it is told; the message says what was found."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(f"{code.name}: {detail}")
        self.code = code
        self.detail = detail


class LocalProtocolError(Exception):
    """This end asked for something that the state of the connection does not allow: a bug of the caller."""
