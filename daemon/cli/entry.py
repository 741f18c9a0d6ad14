"""Where the command `uplinkd` starts."""

import daemon.cli.server_packages  # noqa: F401 - stands first: it ends the process where what main needs is missing
from daemon.cli.main import main

__all__ = ["main"]
