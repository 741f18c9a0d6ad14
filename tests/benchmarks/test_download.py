"""The download benchmark: all contestants serve the same bytes, and the client detects wrong responses."""

import http.client
import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from benchmarks import download, payload, process
from benchmarks.__main__ import measure
from benchmarks.download import RANGE_BYTES, Shape, Site
from benchmarks.lab import Lab, Size
from benchmarks.payload import Payload
from benchmarks.peers import nginx

RANGES = Shape("ranges", 2, RANGE_BYTES, (64, 64, 64))
PLAIN = {"whole": "GiB/s", "ranges-1": "requests/s", "ranges-32": "requests/s"}
BEHIND_NGINX = {"accel-ranges-1": "requests/s", "accel-ranges-32": "requests/s"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Size.TINY, tmp_path, lambda _line: None)


@pytest.fixture
def file(lab: Lab) -> Payload:
    return payload.make(lab.directory, 1 << 20)


@pytest.fixture
def sites(lab: Lab, file: Payload) -> Iterator[list[Site]]:
    with ExitStack() as stack:
        ours = stack.enter_context(download.uploaded(lab, file))
        found = [ours, *(stack.enter_context(site(lab, ours.file)) for site in (download.limit, download.bare))]
        if nginx.missing() is None:
            found.append(stack.enter_context(download.peer(lab, ours.file)))
            found.append(stack.enter_context(download.behind_nginx(lab, ours)))
        yield found


def test_a_run_has_all_cases_and_names_missing_peers() -> None:
    result = measure("download", Size.TINY)
    assert list(result.missing) == [nginx.missing()] * (nginx.missing() is not None)
    peers = set() if result.missing else {"nginx"}
    assert {case.name: case.unit for case in result.cases} == (PLAIN if result.missing else PLAIN | BEHIND_NGINX)
    for case in result.cases:
        rivals = [*case.peers.values()] if case.limit is None else [case.limit, *case.peers.values()]
        assert all(math.isfinite(rival.ratio.median) and rival.ratio.median > 0 for rival in rivals)
        assert case.peers.keys() == (peers | {"aiohttp"} if case.name in PLAIN else peers)
    assert [target.what for case in result.cases for target in case.targets] == (
        [] if result.missing else ["whole: ratio to nginx", "accel-ranges-32: ratio to nginx"]
    )


def test_all_contestants_serve_the_same_bytes(sites: list[Site], file: Payload) -> None:
    data = file.path.read_bytes()
    for site in sites:
        with closing(http.client.HTTPConnection("127.0.0.1", site.port)) as asking:
            for start in (0, 1, 500_000, len(data) - 65_536):
                fields = {"Authorization": f"Bearer {site.bearer}", "Range": f"bytes={start}-{start + 65_535}"}
                asking.request("GET", site.path, headers=fields)
                answer = asking.getresponse()
                assert (answer.status, answer.read()) == (206, data[start : start + 65_536]), site.name


def test_the_daemon_checks_the_token(lab: Lab, file: Payload) -> None:
    with download.uploaded(lab, file) as site:
        without_token = Site(site.name, site.promise, site.server, site.port, site.path, site.file)
        with pytest.raises(process.Failed, match="401"):
            download.fetch(without_token, RANGES, file, 4)


def test_the_client_detects_a_wrong_size(lab: Lab, file: Payload) -> None:
    larger = Payload(file.path, file.size_bytes + 1)
    with download.limit(lab, file.path) as site:
        assert download.fetch(site, RANGES, file, 10).value > 0
        with pytest.raises(process.Failed, match="Content-Range"):
            download.fetch(site, RANGES, larger, 10)
        with pytest.raises(process.Failed, match="Content-Length"):
            download.fetch(site, Shape("whole", 1, 0, (1, 1, 1)), larger, 1)
