import http.client
from pathlib import Path

import pytest

from benchmarks import process
from benchmarks.peers import tus
from tests.support.deadlines import DEADLINE_S
from tests.support.receiving_peers import needs, stores_what_it_is_given

pytestmark = needs(tus.missing)


def test_tus_stores_what_it_receives(tmp_path: Path) -> None:
    stores_what_it_is_given(tus.serving(tmp_path), tmp_path)


def test_an_upload_resumes_where_it_was_cut(tmp_path: Path) -> None:
    with tus.serving(tmp_path) as peer:
        target = peer.create("cut", 10)
        assert peer.url.endswith(tus.MOUNT)
        for offset, part in ((0, b"01234"), (5, b"56789")):
            assert _answer(peer.port, "HEAD", target)["Upload-Offset"] == str(offset)
            content = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            _answer(peer.port, "PATCH", target, content, part)
        assert (peer.root / "cut").read_bytes() == b"0123456789"


def test_a_refusal_is_a_failure_that_names_the_file(tmp_path: Path) -> None:
    with tus.serving(tmp_path) as peer, pytest.raises(process.Failed, match="huge"):
        peer.create("huge", -1)


def _answer(
    port: int, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> http.client.HTTPMessage:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request(method, target, body, tus.VERSION | (headers or {}))
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 204)
        return answer.headers
    finally:
        connection.close()
