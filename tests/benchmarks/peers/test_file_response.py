"""The bare aiohttp server."""

import urllib.request
from pathlib import Path

from benchmarks.peers import file_response
from tests.support.deadlines import DEADLINE_S


def test_it_serves_ranges_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(100)))
    with file_response.serving(tmp_path, file) as (_, port):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/any", headers={"Range": "bytes=10-19"})
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            assert answer.status == 206
            assert answer.read() == bytes(range(10, 20))
