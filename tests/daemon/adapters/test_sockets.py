"""What the kernel tells of a connection, on real sockets."""

import socket

from daemon.adapters.sockets import socket_state
from tests.support.waiting import until


async def test_unsent_bytes_turn_into_acknowledged_ones_as_the_other_side_reads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as reader:
        writer, _ = server.accept()
        with writer:
            before = socket_state(writer.fileno())
            assert before is not None
            assert before.unsent_bytes == 0
            writer.setblocking(False)
            sent = 0
            try:
                while True:
                    sent += writer.send(bytes(65536))
            except BlockingIOError:
                pass
            full = socket_state(writer.fileno())
            assert full is not None
            assert 0 < full.unsent_bytes <= sent
            left = sent
            while left:
                left -= len(reader.recv(min(left, 65536)))

            def is_all_acked() -> bool:
                state = socket_state(writer.fileno())
                return state is not None and state.unsent_bytes == 0 and state.acked_bytes - before.acked_bytes == sent

            await until(is_all_acked)


def test_other_sockets_have_no_such_state() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert socket_state(one.fileno()) is None
