"""The packages of the extra `server`. Importing this module ends the process if one is missing, as on a device.

`daemon.cli.entry` imports it first, so that the user reads what to install instead of a traceback.
"""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, requires

ABSENT = """\
uplinkd: the server's packages are not installed: {}
An installation without the extra `server` is for devices. To run the server: pip install 'uplinkd[server]'\
"""


def missing(requirements: Iterable[str]) -> list[str]:
    """The names of the packages of the extra `server` that are not installed. `requirements` are lines of PEP 508."""
    of_server = (line for line in requirements if re.search(r"""extra == ["']server["']""", line))
    return [name for line in of_server if not _is_installed(name := re.split(r"[^\w.-]", line, maxsplit=1)[0])]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


if absent := missing(requires("uplinkd") or ()):
    raise SystemExit(ABSENT.format(", ".join(absent)))
