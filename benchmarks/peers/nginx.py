"""nginx: WebDAV PUT, and the GET of static files, over HTTP or HTTPS."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import certificate, process
from benchmarks.payload import Payload
from benchmarks.peers import http, programs
from benchmarks.peers.receiver import Receiver

PROMISE = (
    "WebDAV PUT answered 201, body buffer 128 KiB; nginx syncs nothing and keeps no checksum, "
    "so one fdatasync of file and directory is added"
)

CONFIGURATION = """
{user}
daemon off;
worker_processes auto;
error_log stderr;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  open_file_cache max=64;
  default_type application/octet-stream;
  # By default nginx closes a connection after 1,000 requests, and the benchmark would measure reconnecting.
  keepalive_requests 10000000;
  client_max_body_size 0;
  # nginx makes a write per buffer, by default 16 KiB. This size is its best: larger ones do not fit the CPU's cache.
  client_body_buffer_size 128k;
  # On the same file system as the root, so that a PUT ends with a rename and not a copy.
  client_body_temp_path {directory}/incoming;
  proxy_temp_path {directory}/unused;
  fastcgi_temp_path {directory}/unused;
  uwsgi_temp_path {directory}/unused;
  scgi_temp_path {directory}/unused;
  server {{
    listen 127.0.0.1:{port}{tls};
    root {directory}/files;
    dav_methods PUT DELETE;
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx(Receiver):
    """A running nginx, which also serves the files in `root`. `authority` is set with TLS."""

    authority: Path | None

    def put_many(self, payload: Payload, names: Sequence[str]) -> float:
        targets = [f"/{name}" for name in names]
        return http.send("PUT", payload, self.port, targets, authority=self.authority) + self.sync(names)


def missing() -> str | None:
    return None if programs.find("nginx") else "nginx"


@contextlib.contextmanager
def serving(directory: Path, tls: bool = False) -> Iterator[Nginx]:
    """nginx, with all its files in `directory`."""
    root, port = directory / "files", process.free_port()
    root.mkdir()
    pair = certificate.make(directory) if tls else None
    text = CONFIGURATION.format(
        # When root starts nginx its workers become www-data, which may have no access to the directory.
        user="user root;" if os.geteuid() == 0 else "",
        directory=directory,
        port=port,
        tls=f" ssl; ssl_certificate {pair.path}; ssl_certificate_key {pair.key_path}" if pair else "",
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(text)
    command = [programs.find("nginx") or "nginx", "-p", str(directory), "-c", str(configuration), "-e", "stderr"]
    with process.started(command, directory / "nginx.log", port) as server:
        yield Nginx(f"{'HTTPS: ' if tls else ''}{PROMISE}", server, port, root, pair.path if pair else None)
