"""Exceptions of both ends of the protocol."""

from protocol.errors import ErrorCode


class ProtocolError(Exception):
    """The peer broke the protocol. `code` goes into the answer; `detail` says what was found."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(f"{code.name}: {detail}")
        self.code = code
        self.detail = detail


class LocalProtocolError(Exception):
    """This end asked for something that the state of the connection does not allow: a bug of the caller."""
