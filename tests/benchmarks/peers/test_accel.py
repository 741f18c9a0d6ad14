"""The nginx configuration of docs/http.md, adapted to this machine's paths and ports."""

from pathlib import Path

import pytest

from benchmarks.peers import accel
from benchmarks.peers.accel import Place

PLACE = Place(Path("/somewhere"), Path("/data"), 1234, 5678, "")


def test_paths_and_ports_are_replaced() -> None:
    text = accel.configuration(PLACE)
    for here in (
        "listen 127.0.0.1:1234;",
        "server 127.0.0.1:5678;",
        "root /data;",
        "proxy_cache_path /somewhere/cache ",
    ):
        assert here in text
    for documented in ("/var/", "/run/", "443", "7780", "ssl"):
        assert documented not in text


def test_a_document_that_no_longer_fits_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "http.md"
    changed.write_text(accel.DOCUMENT.read_text().replace("127.0.0.1:7780;", "localhost:7780;"))
    monkeypatch.setattr(accel, "DOCUMENT", changed)
    with pytest.raises(ValueError, match=r"has no 'server 127\.0\.0\.1:7780;'"):
        accel.configuration(PLACE)
    changed.write_text("nothing")
    with pytest.raises(ValueError, match="0 blocks of nginx"):
        accel.configuration(PLACE)
