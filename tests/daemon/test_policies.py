"""Each setting reaches the part that uses it."""

from dataclasses import replace

import pytest

from daemon import policies
from daemon.catalog.expiry import ExpiryPolicy
from daemon.ingest.committer import CycleSettings
from daemon.settings import Settings, load


def settings_of(**flags: str) -> Settings:
    return load(None, {}, {key.replace("__", "."): value for key, value in flags.items()})


def test_auth() -> None:
    policy = policies.auth_policy(settings_of(auth__issuer="i", auth__leeway_s="7", auth__required_claims="a,b"))
    assert (policy.issuer, policy.leeway_s, policy.required_claims) == ("i", 7, ("a", "b"))
    assert (policy.audience, policy.tenant_default, policy.tenant_claim) == ("uplinkd", "default", "tenant")


def test_cycle() -> None:
    assert policies.cycle_settings(settings_of(commit__cycle_ms="2.5", commit__cycle_bytes="8192")) == CycleSettings(
        8192, 0.0025
    )


def test_uploads() -> None:
    policy = policies.upload_policy(
        settings_of(
            limits__ranges_max="3",
            storage__quota_bytes_per_device="4",
            storage__uploads_max_per_device="8",
            storage__uploads_per_hour_per_device="9",
            storage__size_max_bytes="5",
            storage__disk_free_min_bytes="6",
            cleanup__tombstone_s="7",
        )
    )
    assert policy == replace(
        policy,
        ranges_max=3,
        quota_bytes_per_device=4,
        uploads_max_per_device=8,
        uploads_per_hour_per_device=9,
        size_max_bytes=5,
        disk_free_min_bytes=6,
        tombstone_s=7,
    )


@pytest.mark.parametrize(("action", "keeps"), [("delete", False), ("keep", True)])
def test_cleanup(action: str, keeps: bool) -> None:
    policy = policies.cleanup_policy(
        settings_of(
            cleanup__stale_action=action,
            cleanup__interval_s="1",
            cleanup__jitter="0.5",
            cleanup__stale_s="2",
            cleanup__retention_s="3",
            cleanup__rejected_s="4",
            cleanup__tombstone_s="5",
            cleanup__max_fraction="0.25",
            cleanup__clock_skew_max_s="6",
        )
    )
    assert policy.expiry == ExpiryPolicy(stale_s=2, keeps_stale=keeps, retention_s=3, rejected_s=4)
    assert (policy.interval_s, policy.jitter, policy.tombstone_s) == (1, 0.5, 5)
    assert (policy.max_fraction, policy.clock_skew_max_s) == (0.25, 6)
