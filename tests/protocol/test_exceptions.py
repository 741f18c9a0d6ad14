"""The protocol's exceptions carry what the peer needs to know."""

from protocol.errors import ErrorCode
from protocol.exceptions import LocalProtocolError, ProtocolError


def test_a_protocol_error_carries_code_and_detail() -> None:
    error = ProtocolError(ErrorCode.FRAME_UNKNOWN, "type 0x7f")
    assert (error.code, error.detail) == (ErrorCode.FRAME_UNKNOWN, "type 0x7f")
    assert str(error) == "FRAME_UNKNOWN: type 0x7f"


def test_a_caller_bug_is_not_a_protocol_error() -> None:
    assert not issubclass(LocalProtocolError, ProtocolError)
