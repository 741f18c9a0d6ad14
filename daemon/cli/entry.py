"""The entry point of the command `uplinkd`."""

import daemon.cli.server_packages  # noqa: F401 - first, since it ends the process if main's packages are missing
from daemon.cli.main import main

__all__ = ["main"]
