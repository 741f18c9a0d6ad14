"""Let the reverse proxy send the bytes of a download: nginx's X-Accel-Redirect.

The daemon decides who may read what; nginx then opens the file itself and sends it, the whole or a Range of it.
docs/http.md has the configuration that belongs to it.
"""

from collections.abc import Mapping

from aiohttp import hdrs

from control.payload import Payload

REDIRECT = "X-Accel-Redirect"
"""The field of an answer that names the file, as a path that nginx serves from an internal location."""

SENDFILE_TYPE = "X-Sendfile-Type"
"""The field of a request by which the proxy says that it follows REDIRECT; Rack's convention.

Without it the daemon sends the bytes: a client that bypasses the proxy would take the empty answer for the file.
"""

_WEIGHED_BY_NGINX = (hdrs.IF_MATCH, hdrs.IF_UNMODIFIED_SINCE)
"""Conditions that nginx would hold against its own idea of the file, before it sees our ETag: it would answer 412."""


def is_offered(headers: Mapping[str, str], body: Payload) -> bool:
    """Whether the proxy can send `body`, and would choose the same bytes as the daemon.

    The daemon sends an empty file itself, and the whole file where it ignores a Range that nginx would not.
    """
    if headers.get(SENDFILE_TYPE) != REDIRECT or not body.length:
        return False
    is_range_ignored = hdrs.RANGE in headers and body.status == 200
    return not is_range_ignored and not any(name in headers for name in _WEIGHED_BY_NGINX)
