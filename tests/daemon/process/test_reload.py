"""What a reload applies, and what needs a restart."""

from pathlib import Path

import pytest

from daemon.process.reload import take_over
from daemon.sections import Commit, Limits, Listen
from daemon.settings import Settings

OLD = Settings()
TLS = Settings(listen=Listen(tls_certificate=Path("/c.pem"), tls_key=Path("/k.pem")))
OTHER_TLS = Settings(listen=Listen(tls_certificate=Path("/other.pem"), tls_key=Path("/k.pem")))


def test_the_same_settings_change_nothing() -> None:
    takeover = take_over(OLD, Settings(), has_tls=False)
    assert (takeover.applied, takeover.waiting, takeover.settings) == ((), (), OLD)
    assert str(takeover) == "changed: nothing"


def test_reloadable_settings_change_and_the_others_stay() -> None:
    found = Settings(limits=Limits(streams_max=3), commit=Commit(durability="write"))
    takeover = take_over(OLD, found, has_tls=False)
    assert takeover.settings.limits == found.limits
    assert takeover.settings.commit == OLD.commit
    assert str(takeover) == "changed: limits.streams_max; after a restart: commit.durability"


def test_a_new_certificate_is_applied() -> None:
    takeover = take_over(TLS, OTHER_TLS, has_tls=True)
    assert (takeover.applied, takeover.waiting) == (("listen.tls_certificate",), ())
    assert takeover.settings == OTHER_TLS


@pytest.mark.parametrize(("old", "found", "has_tls"), [(OLD, TLS, False), (TLS, OLD, True)], ids=["on", "off"])
def test_only_a_restart_switches_tls(old: Settings, found: Settings, has_tls: bool) -> None:
    takeover = take_over(old, found, has_tls=has_tls)
    assert (takeover.applied, sorted(takeover.waiting)) == ((), ["listen.tls_certificate", "listen.tls_key"])
    assert takeover.settings == old
