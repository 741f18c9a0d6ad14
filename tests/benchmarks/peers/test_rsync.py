from pathlib import Path

import pytest

from benchmarks import payload, process
from benchmarks.peers import rsync
from tests.support.receiving_peers import needs, stores_what_it_is_given

pytestmark = needs(rsync.missing)


def test_rsync_stores_what_it_receives(tmp_path: Path) -> None:
    stores_what_it_is_given(rsync.serving(tmp_path), tmp_path)


def test_a_refusal_is_a_failure(tmp_path: Path) -> None:
    with rsync.serving(tmp_path) as peer, pytest.raises(process.Failed, match="rsync"):
        peer.put(payload.make(tmp_path, 1000), "no/such/directory")


def test_rsync_refuses_tls(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no TLS"), rsync.serving(tmp_path, tls=True):
        pass
