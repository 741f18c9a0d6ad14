"""Exceptions of the protocol carry what the peer is told."""

from protocol.errors import ErrorCode
from protocol.exceptions import LocalProtocolError, ProtocolError


def test_a_protocol_error_carries_code_and_detail() -> None:
    error = ProtocolError(ErrorCode.FRAME_UNKNOWN, "type 0x7f")
    assert (error.code, error.detail) == (ErrorCode.FRAME_UNKNOWN, "type 0x7f")
    assert str(error) == "FRAME_UNKNOWN: type 0x7f"


def test_a_bug_of_the_caller_is_no_error_of_the_peer() -> None:
    assert not issubclass(LocalProtocolError, ProtocolError)
