"""The daemon accepts the frames that are made beforehand."""

import hashlib
from pathlib import Path

from benchmarks import wire
from benchmarks.dialogue import Dialogue
from benchmarks.uplinkd import serving
from protocol import codec, frames
from protocol.constants import FrameType
from protocol.errors import ErrorCode

CONTENT = b"0123456789"


def test_the_daemon_accepts_an_upload_that_resumes_and_its_digest(tmp_path: Path) -> None:
    sha256, half = hashlib.sha256(CONTENT).digest(), len(CONTENT) // 2
    opening = wire.opening("name", len(CONTENT), stream=7, sha256=sha256)
    with serving(tmp_path) as daemon:
        with Dialogue(daemon, "device") as device:
            assert device.ask(opening, frames.Opened).next_expected_byte == 0
            device.send(CONTENT[:half], stream=7)
        with Dialogue(daemon, "device") as device:
            assert device.ask(opening, frames.Opened).next_expected_byte == half
            rest = codec.encode_chunk_header(FrameType.CHUNK, 7, half, CONTENT[half:]) + CONTENT[half:]
            finish = wire.finish(len(CONTENT), stream=7, sha256=sha256)
            finished = device.ask(rest + finish, frames.Finished)
        [stored] = (daemon.data_dir / "files").glob("*/*")
        assert (finished.size, stored.read_bytes()) == (len(CONTENT), CONTENT)


def test_a_false_digest_is_refused_in_open_and_in_finish(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon, Dialogue(daemon, "device") as device:
        for stream, in_open, in_finish in ((1, bytes(32), None), (2, None, bytes(32))):
            device.ask(wire.opening(f"lie {stream}", len(CONTENT), stream, in_open), frames.Opened)
            device.send(CONTENT, stream)
            refused = device.ask(wire.finish(len(CONTENT), stream, in_finish), frames.Error)
            assert refused.code == ErrorCode.DIGEST_MISMATCH
