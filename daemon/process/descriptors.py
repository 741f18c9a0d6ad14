"""How the process's file descriptors are divided, so that no part of the daemon takes those of another."""

from dataclasses import dataclass

OPEN_FILES_MAX = 4096
"""How many upload files may stay open between writes. With ten thousand connections, the process stays below a limit of
20,000 descriptors."""

DOWNLOAD_DESCRIPTORS = 2
"""Of a download: its connection and its file."""

RESERVE = 128
"""For all else: catalog, lock, listeners, threads and the log take about 30, admin commands and a batch of accepted
links another 70 at most."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the settings ask for."""

    connections: int
    handshakes: int
    http_connections: int
    downloads: int

    @property
    def http(self) -> int:
        """Descriptors of the control plane."""
        return self.http_connections + DOWNLOAD_DESCRIPTORS * self.downloads

    @property
    def total(self) -> int:
        """Descriptors for everything."""
        return self.connections + self.handshakes + self.http + OPEN_FILES_MAX + RESERVE


@dataclass(frozen=True, slots=True)
class Budget:
    """What each part may take of `limit` descriptors. `is_short`: less than the settings ask for."""

    limit: int
    wanted: int
    connections: int
    handshakes: int
    http: int
    open_files: int

    @property
    def http_connections_max(self) -> int:
        """Connections of the control plane for which there is room, downloads and their files beside them."""
        return max(self.http // 2, 1) if self.is_short else self.http

    @property
    def is_short(self) -> bool:
        return self.limit < self.wanted

    def __str__(self) -> str:
        if not self.is_short:
            return f"{self.limit}, of which {self.wanted} may be needed"
        return (
            f"{self.limit}, but the settings may need {self.wanted}: only {self.connections} connections, "
            f"{self.handshakes} handshakes, {self.http} for HTTP and {self.open_files} open files fit; "
            f"raise LimitNOFILE, or lower limits.connections_max"
        )


def divide(limit: int, demand: Demand) -> Budget:
    """Give each part what it asks for or, where that is too much, a share.

    Of what the reserve leaves, HTTP and handshakes may take an eighth each and open files a quarter: they work with
    few, only more slowly. Connections get the rest, at least half.
    """
    if limit >= demand.total:
        return Budget(limit, demand.total, demand.connections, demand.handshakes, demand.http, OPEN_FILES_MAX)
    left = limit - min(RESERVE, limit // 4)
    http = min(demand.http, left // 8)
    handshakes = min(demand.handshakes, left // 8)
    open_files = min(OPEN_FILES_MAX, left // 4)
    connections = min(demand.connections, left - http - handshakes - open_files)
    return Budget(limit, demand.total, connections, max(handshakes, 1), http, max(open_files, 1))
