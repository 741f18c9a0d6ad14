"""Failures of the disk and the catalog, as devices and metrics see them."""

import errno

from daemon.catalog.interface import CatalogFailed
from daemon.telemetry.metrics import StorageFailure
from protocol.errors import ErrorCode

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def storage_failure(error: OSError) -> tuple[ErrorCode, str]:
    """The code and detail that a device gets when its bytes could not be written or synced."""
    if error.errno in _NO_ROOM:
        return ErrorCode.DISK_FULL, "the server's disk is full; nothing acknowledged is lost"
    return ErrorCode.STORAGE_FAILED, f"the server could not store the bytes: {error.strerror or error}"


def catalog_failure(error: CatalogFailed) -> tuple[ErrorCode, str]:
    """The code and detail that a device gets when the catalog recorded nothing."""
    return ErrorCode.DISK_FULL if error.disk_full else ErrorCode.STORAGE_FAILED, str(error)


def failure_kind(error: OSError, otherwise: StorageFailure) -> StorageFailure:
    """How the metrics count a failure of the disk."""
    return StorageFailure.DISK_FULL if error.errno in _NO_ROOM else otherwise
