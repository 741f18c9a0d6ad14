"""The behaviour that every peer that receives files must have."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from benchmarks import payload
from benchmarks.peers.receiver import Receiver

SIZE_BYTES = 3 * 1024 * 1024 + 5
"""Several times each program's buffer, and a remainder."""


def needs(missing: Callable[[], str | None]) -> pytest.MarkDecorator:
    """Skip a module's tests if the peer is not installed."""
    absent = missing()
    return pytest.mark.skipif(absent is not None, reason=f"not installed: {absent} (make peers)")


def stores_what_it_is_given(serving: AbstractContextManager[Receiver], directory: Path) -> None:
    """Store one file, three at once, and one again after deletion. The bytes in `root` must be the payload's."""
    sent = payload.make(directory, SIZE_BYTES)
    expected = sent.path.read_bytes()
    names = ["second", "third", "fourth"]
    with serving as peer:
        assert peer.put(sent, "first") > 0
        assert peer.put_many(sent, names) > 0
        assert all((peer.root / name).read_bytes() == expected for name in ["first", *names])
        peer.delete("first")
        assert not list(peer.root.glob("first*"))
        assert peer.put(sent, "first") > 0
        assert (peer.root / "first").read_bytes() == expected
        assert peer.promise
        assert peer.server.resident_bytes() > 0
