"""The daemon as the benchmarks start it."""

import json
from collections.abc import Iterator
from urllib.error import HTTPError

import pytest

from benchmarks import process, uplinkd, wire
from benchmarks.dialogue import Dialogue
from benchmarks.uplinkd import Uplinkd
from protocol import frames


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uplinkd]:
    """A daemon with one setting and a prefix, and with a setting in the caller's environment that it must ignore."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("UPLINKD_HTTP__HOST", "127.0.0.2")
        directory = tmp_path_factory.mktemp("daemon")
        with uplinkd.serving(directory, {"LIMITS__STREAMS_MAX": "3"}, ("nice",)) as running:
            yield running


def test_tokens_signed_with_the_daemons_secret_admit_devices_and_operators(daemon: Uplinkd) -> None:
    with Dialogue(daemon, "device") as device:
        device.store("name", b"content", stream=1)
    [file] = json.loads(daemon.ask("GET", "/v1/files"))["files"]
    assert (file["name"], file["device"]) == ("name", "device")


def test_a_refusal_by_the_control_plane_is_raised(daemon: Uplinkd) -> None:
    with pytest.raises(HTTPError, match="404") as refused:
        daemon.ask("GET", "/no/such/place")
    refused.value.close()


def test_a_metric_is_summed_over_its_labels(daemon: Uplinkd) -> None:
    before = daemon.metric("uplinkd_upload_opens_total")
    for _ in ("created", "resumed"):
        with Dialogue(daemon, "device") as device:
            device.ask(wire.opening("opened twice", 1), frames.Opened)
    assert daemon.metric("uplinkd_upload_opens_total") == before + 2


def test_a_metric_without_samples_is_0_even_if_another_name_starts_with_its_own(daemon: Uplinkd) -> None:
    assert daemon.metric("uplinkd_upload_opens") == 0


def test_given_settings_override_the_daemons_defaults(daemon: Uplinkd) -> None:
    with Dialogue(daemon, "device") as device:
        for stream in range(1, 4):
            device.ask(wire.opening(f"stream {stream}", 1, stream), frames.Opened)
        with pytest.raises(process.Failed, match="3 uploads are open"):
            device.ask(wire.opening("stream 4", 1, 4), frames.Opened)
