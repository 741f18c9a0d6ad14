"""nginx in front of the daemon, configured as in docs/http.md: the daemon authorises, nginx sends."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import process
from benchmarks.peers import programs

DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"

ACCEL = {"HTTP__CONTENT_DELIVERY": "accel"}
"""The setting that the daemon needs behind nginx."""

FRAME = """
{user}
daemon off;
worker_processes auto;
pcre_jit on;
error_log stderr;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  # By default nginx closes a connection after 1,000 requests, and the benchmark would measure reconnecting.
  keepalive_requests 10000000;
  client_body_temp_path {directory}/unused;
  proxy_temp_path {directory}/proxied;
  fastcgi_temp_path {directory}/unused;
  uwsgi_temp_path {directory}/unused;
  scgi_temp_path {directory}/unused;
{site}
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """What differs from the document. `user` is the user of the workers if root starts nginx, else ""."""

    directory: Path
    data_dir: Path
    port: int
    http_port: int
    user: str


def configuration(place: Place) -> str:
    """An nginx.conf around the block in the document. Raises ValueError if the document no longer fits."""
    blocks = re.findall(r"^```nginx\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if len(blocks) != 1:
        raise ValueError(f"{DOCUMENT}: {len(blocks)} blocks of nginx, expected one")
    site = blocks[0]
    for documented, here in {
        "server 127.0.0.1:7780;": f"server 127.0.0.1:{place.http_port};",
        "listen 443 ssl;": f"listen 127.0.0.1:{place.port};",
        "ssl_certificate /etc/ssl/files.example.com.pem;": "",
        "ssl_certificate_key /etc/ssl/files.example.com.key;": "",
        "/var/lib/uplinkd;": f"{place.data_dir};",
        "/run/nginx-uplinkd ": f"{place.directory}/cache ",
    }.items():
        if documented not in site:
            raise ValueError(f"{DOCUMENT}: its nginx configuration has no {documented!r}")
        site = site.replace(documented, here)
    user = f"user {place.user};" if place.user else ""
    return FRAME.format(user=user, directory=place.directory, site=site)


@contextlib.contextmanager
def serving(place: Place) -> Iterator[process.Server]:
    """nginx, with all its files in `place.directory`."""
    path = place.directory / "nginx.conf"
    path.write_text(configuration(place))
    command = [programs.find("nginx") or "nginx", "-p", str(place.directory), "-c", str(path), "-e", "stderr"]
    with process.started(command, place.directory / "nginx.log", place.port) as server:
        yield server
