from pathlib import Path

import pytest

from benchmarks import payload, process
from benchmarks.peers import sftp
from tests.support.receiving_peers import needs, stores_what_it_is_given

pytestmark = needs(sftp.missing)


def test_sftp_stores_what_it_receives(tmp_path: Path) -> None:
    stores_what_it_is_given(sftp.serving(tmp_path), tmp_path)


def test_a_refusal_is_a_failure_that_names_the_file(tmp_path: Path) -> None:
    with sftp.serving(tmp_path) as peer, pytest.raises(process.Failed, match="no/such/directory"):
        peer.put(payload.make(tmp_path, 1000), "no/such/directory")
