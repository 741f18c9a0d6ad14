"""Find the peers' programs."""

import shutil

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
"""Debian installs servers in /usr/sbin, which is not in every user's PATH."""


def find(name: str) -> str | None:
    """The absolute path of an installed program. sshd does not start without it."""
    return shutil.which(name) or shutil.which(name, path=SEARCH_PATH)
