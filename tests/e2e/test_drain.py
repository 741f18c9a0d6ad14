"""SIGTERM during uploads: devices learn when to reconnect, bytes in flight are acknowledged, and the daemon exits."""

import asyncio
import contextlib
import random
from pathlib import Path

from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.support.ack_ledger import Ledger, LinkLost, Promise, connected, spans
from tests.support.daemon_process import DaemonProcess
from tests.support.deadlines import SCENE_S
from tests.support.device_tokens import device_token

DEVICES = 4
FILE_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 32 * 1024
WINDOW_BYTES = 4 * CHUNK_BYTES
RECONNECT_MS = Span(2000, 7000)

SETTINGS = {
    "LIMITS__CHUNK_BYTES_MAX": str(CHUNK_BYTES),
    "LIMITS__WINDOW_BYTES": str(WINDOW_BYTES),
    "DRAIN__RECONNECT_MS_MIN": str(RECONNECT_MS.start),
    "DRAIN__RECONNECT_MS_MAX": str(RECONNECT_MS.end),
}
DRAIN_TIMEOUT_S = 60


async def test_uploads_resume_at_the_last_acknowledgement(tmp_path: Path) -> None:
    rng = random.Random(15)
    ledger = Ledger()
    names = [f"file-{number}" for number in range(DEVICES)]
    contents = {name: rng.randbytes(FILE_BYTES) for name in names}
    reconnects_ms: list[int] = []

    async with asyncio.timeout(SCENE_S):
        settings = SETTINGS | {"DRAIN__TIMEOUT_S": str(DRAIN_TIMEOUT_S)}
        async with DaemonProcess(tmp_path / "data", settings) as daemon:
            token = await device_token(daemon, "device")

            async def work(name: str) -> Promise:
                async with connected(daemon.addresses.listen, token, ledger) as connection:
                    stream = await connection.open(name, contents[name])
                    promise = connection.promises[stream]
                    await connection.send(stream, spans(promise, CHUNK_BYTES))
                    assert connection.goaway is not None
                    assert connection.goaway.code == ErrorCode.SHUTTING_DOWN
                    reconnects_ms.append(connection.goaway.reconnect_ms)
                    # This side does not close. The server does, once it has sent everything.
                    await connection.until_over()
                    in_flight_bytes = connection.sent[stream] - promise.next_expected_byte
                    assert 0 <= in_flight_bytes <= WINDOW_BYTES
                    assert connection.sent[stream] < FILE_BYTES
                    return promise

            working = [asyncio.create_task(work(name)) for name in names]
            await ledger.until(3 * DEVICES)
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                assert await daemon.stop() == 0
            promises = await asyncio.gather(*working)
        assert all(RECONNECT_MS.start <= each <= RECONNECT_MS.end for each in reconnects_ms)
        assert len(set(reconnects_ms)) > 1, "all devices would reconnect at the same moment"
        ledger.check(tmp_path / "data")

        async with (
            DaemonProcess(tmp_path / "data", settings) as daemon,
            connected(daemon.addresses.listen, token, ledger) as connection,
        ):
            for name, promise in zip(names, promises, strict=True):
                acknowledged = promise.next_expected_byte
                stream = await connection.open(name, contents[name])
                assert connection.opened[stream].upload_id == promise.upload_id
                assert connection.opened[stream].next_expected_byte == acknowledged
                await connection.send(stream, spans(promise, CHUNK_BYTES))
                await connection.finish(stream)
        ledger.check(tmp_path / "data")


async def test_chunks_in_flight_when_goaway_is_sent_are_acknowledged(tmp_path: Path) -> None:
    ledger = Ledger()
    content = random.Random(17).randbytes(2 * CHUNK_BYTES)
    async with asyncio.timeout(SCENE_S), DaemonProcess(tmp_path / "data", SETTINGS) as daemon:
        token = await device_token(daemon, "device")
        async with connected(daemon.addresses.listen, token, ledger) as connection:
            stream = await connection.open("file", content)
            promise = connection.promises[stream]
            await connection.chunk(stream, 0, CHUNK_BYTES)
            await connection.until(lambda: connection.is_settled)
            stopping = asyncio.create_task(daemon.stop())
            await connection.until(lambda: connection.goaway is not None)
            # This is a chunk that a device on a slow link sent before it read GOAWAY: it arrives afterwards.
            with contextlib.suppress(LinkLost):
                await connection.chunk(stream, CHUNK_BYTES, 2 * CHUNK_BYTES)
                await connection.until(lambda: connection.is_settled)
        assert await stopping == 0
    assert promise.next_expected_byte == 2 * CHUNK_BYTES


async def test_devices_that_neither_stop_nor_close_do_not_delay_the_exit(tmp_path: Path) -> None:
    ledger = Ledger()
    content = random.Random(16).randbytes(FILE_BYTES)
    async with asyncio.timeout(SCENE_S):
        async with DaemonProcess(tmp_path / "data", SETTINGS | {"DRAIN__TIMEOUT_S": "1"}) as daemon:
            token = await device_token(daemon, "device")
            async with (
                connected(daemon.addresses.listen, token, ledger) as idle,
                connected(daemon.addresses.listen, token, ledger) as stubborn,
            ):
                stream = await stubborn.open("endless", content, declared=False)

                async def send_for_ever() -> None:
                    while True:
                        for span in spans(Promise(0, content), CHUNK_BYTES):
                            await stubborn.chunk(stream, *span)

                sending = asyncio.create_task(send_for_ever())
                await ledger.until(3)
                assert await daemon.stop() == 0
                await asyncio.wait([sending])
                assert isinstance(sending.exception(), LinkLost)
                assert idle.goaway is not None
                assert stubborn.goaway is not None
        ledger.check(tmp_path / "data")
