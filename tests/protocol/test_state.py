"""The transition tables, as PROTOCOL.md §3 gives them."""

import pytest

from protocol.constants import FrameType
from protocol.state import (
    CLIENT_ACCEPTS,
    SERVER_ACCEPTS,
    SERVER_HOLDS,
    STREAM_ACCEPTS,
    ConnectionState,
    StreamState,
)

CHUNKS = {FrameType.CHUNK, FrameType.CHUNK_COMPACT, FrameType.CHUNK_CRC32C}
FROM_DEVICE = CHUNKS | {
    FrameType.HELLO,
    FrameType.PROOF,
    FrameType.REFRESH,
    FrameType.OPEN,
    FrameType.FINISH,
    FrameType.QUERY,
    FrameType.ABORT,
}
BOTH_WAYS = {FrameType.PING, FrameType.PONG}
FROM_SERVER = set(FrameType) - FROM_DEVICE - BOTH_WAYS


def test_the_server_accepts_exactly_the_frames_of_a_device() -> None:
    assert frozenset().union(*SERVER_ACCEPTS.values()) == FROM_DEVICE | BOTH_WAYS


def test_the_device_accepts_exactly_the_frames_of_a_server() -> None:
    assert frozenset().union(*CLIENT_ACCEPTS.values()) == FROM_SERVER | BOTH_WAYS


def test_a_connection_starts_with_hello_alone() -> None:
    assert SERVER_ACCEPTS[ConnectionState.START] == {FrameType.HELLO}
    assert SERVER_ACCEPTS[ConnectionState.CHALLENGED] == {FrameType.PROOF}


def test_input_waits_for_the_credential_check_and_is_discarded_at_the_end() -> None:
    for state in (ConnectionState.DECIDING, ConnectionState.CLOSING):
        assert state not in SERVER_ACCEPTS
        assert state not in SERVER_HOLDS


def test_after_expiry_requests_wait_and_chunks_and_refresh_are_accepted() -> None:
    requests = {FrameType.OPEN, FrameType.FINISH, FrameType.QUERY, FrameType.ABORT}
    assert {ConnectionState.EXPIRED: requests} == SERVER_HOLDS
    assert SERVER_ACCEPTS[ConnectionState.EXPIRED] == SERVER_ACCEPTS[ConnectionState.OPEN] - requests
    assert FrameType.REFRESH in SERVER_ACCEPTS[ConnectionState.EXPIRED]


@pytest.mark.parametrize("state", [ConnectionState.START, ConnectionState.DECIDING, ConnectionState.CHALLENGED])
def test_a_server_may_refuse_at_any_point_of_the_handshake(state: ConnectionState) -> None:
    assert FrameType.REFUSED in CLIENT_ACCEPTS[state]


def test_a_challenge_comes_first_and_only_once() -> None:
    assert [state for state, kinds in CLIENT_ACCEPTS.items() if FrameType.CHALLENGE in kinds] == [ConnectionState.START]


def test_a_stream_waits_for_opened_and_accepts_everything_after_finish() -> None:
    assert set(STREAM_ACCEPTS) == set(StreamState)
    assert STREAM_ACCEPTS[StreamState.OPENING] == set()
    assert STREAM_ACCEPTS[StreamState.RECEIVING] == CHUNKS | {FrameType.FINISH, FrameType.ABORT}
    assert STREAM_ACCEPTS[StreamState.FINISHING] == STREAM_ACCEPTS[StreamState.RECEIVING]
