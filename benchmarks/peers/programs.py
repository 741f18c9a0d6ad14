"""Where the peers' programs are."""

import shutil

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
"""Debian installs servers in /usr/sbin, which is not in everybody's PATH."""


def find(name: str) -> str | None:
    """The absolute path of an installed program; sshd insists on being started by it."""
    return shutil.which(name) or shutil.which(name, path=SEARCH_PATH)
