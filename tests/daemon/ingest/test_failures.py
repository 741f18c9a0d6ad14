"""Failures of disk and catalog, as devices and metrics see them."""

import errno

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.ingest.failures import catalog_failure, failure_kind, storage_failure
from daemon.telemetry.metrics import StorageFailure
from protocol.errors import ErrorCode


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_a_full_disk_whatever_failed(number: int) -> None:
    error = OSError(number, "no room")
    assert storage_failure(error)[0] is ErrorCode.DISK_FULL
    assert failure_kind(error, StorageFailure.WRITE) is StorageFailure.DISK_FULL


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError("Input/output error")])
def test_any_other_failure_names_what_happened(error: OSError) -> None:
    code, detail = storage_failure(error)
    assert code is ErrorCode.STORAGE_FAILED
    assert "Input/output error" in detail
    assert failure_kind(error, StorageFailure.SYNC) is StorageFailure.SYNC


def test_a_catalog_that_found_no_room_is_a_full_disk_too() -> None:
    assert catalog_failure(CatalogFailed("no room", disk_full=True)) == (ErrorCode.DISK_FULL, "no room")
    assert catalog_failure(CatalogFailed("torn")) == (ErrorCode.STORAGE_FAILED, "torn")
