"""How many uploads a device may begin: an hour's at once, then evenly, and nothing is kept of quiet devices."""

from daemon.ingest.upload_rate import HOUR_S, UploadRate
from tests.support.fake_machine import FakeClock

PUMP, METER = ("default", "pump"), ("default", "meter")


def test_an_hours_uploads_may_begin_at_once_and_then_one_for_each_that_is_forgotten() -> None:
    clock = FakeClock()
    rate = UploadRate(clock)
    for _ in range(60):
        assert rate.allows(PUMP, 60)
        rate.begin(PUMP, 60)
    assert not rate.allows(PUMP, 60)
    assert rate.allows(METER, 60)
    clock.pass_s(HOUR_S / 60)
    assert rate.allows(PUMP, 60)
    rate.begin(PUMP, 60)
    assert not rate.allows(PUMP, 60)
    clock.pass_s(HOUR_S)
    assert rate.allows(PUMP, 60)


def test_without_a_limit_nothing_is_counted() -> None:
    rate = UploadRate(FakeClock())
    for _ in range(10):
        rate.begin(PUMP, 0)
        assert rate.allows(PUMP, 0)
    assert len(rate) == 0


def test_a_device_that_was_quiet_for_long_enough_is_forgotten() -> None:
    clock = FakeClock()
    rate = UploadRate(clock)
    for number in range(100):
        rate.begin(("default", f"{number}"), 60)
        clock.pass_s(30)
    rate.begin(PUMP, 60)
    assert len(rate) == 2


def test_a_lower_limit_holds_at_once() -> None:
    rate = UploadRate(FakeClock())
    for _ in range(10):
        rate.begin(PUMP, 60)
    assert not rate.allows(PUMP, 5)
