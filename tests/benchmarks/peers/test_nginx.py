import urllib.request
from pathlib import Path

import pytest

from benchmarks import payload, process
from benchmarks.peers import nginx
from tests.support.deadlines import DEADLINE_S
from tests.support.receiving_peers import needs, stores_what_it_is_given

pytestmark = needs(nginx.missing)


@pytest.mark.parametrize("tls", [False, True])
def test_nginx_stores_what_it_receives(tmp_path: Path, tls: bool) -> None:
    stores_what_it_is_given(nginx.serving(tmp_path, tls), tmp_path)


def test_nginx_serves_ranges_of_the_files_in_its_root(tmp_path: Path) -> None:
    with nginx.serving(tmp_path) as peer:
        (peer.root / "file").write_bytes(bytes(range(100)))
        request = urllib.request.Request(f"http://127.0.0.1:{peer.port}/file", headers={"Range": "bytes=10-19"})
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            assert answer.status == 206
            assert answer.read() == bytes(range(10, 20))


def test_a_refusal_is_a_failure_that_names_the_answer(tmp_path: Path) -> None:
    with nginx.serving(tmp_path) as peer, pytest.raises(process.Failed, match=r"was answered: HTTP/1\.1 [45]"):
        peer.put(payload.make(tmp_path, 1000), "no/such/directory")
