"""Where to connect to, and as whom."""

import argparse
from pathlib import Path

import pytest

from device.cli.settings import ConnectionSettings, UsageError, load_settings
from device.credentials import SecretCredentials, TokenCredentials
from tests.support.certificates import Certificate

SECRET = "A" * 43


def options(**given: str | Path | bool) -> argparse.Namespace:
    names = ("server", "http", "device", "tenant", "secret_file", "ca")
    return argparse.Namespace(**{**dict.fromkeys(names), "tls": False, **given})


def load(environment: dict[str, str] | None = None, **given: str | Path | bool) -> ConnectionSettings:
    return load_settings(options(**given), environment or {"UPLINK_TOKEN": "t"}, None)


def test_the_defaults_are_a_server_on_this_machine() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.http) == ("127.0.0.1", 7710, "http://127.0.0.1:7780")
    assert (settings.tenant, settings.device, settings.tls, settings.https) == ("default", None, None, None)
    assert isinstance(settings.credentials(), TokenCredentials)


def test_flags_win_over_the_environment() -> None:
    environment = {
        "UPLINK_SERVER": "one:1",
        "UPLINK_HTTP": "http://one",
        "UPLINK_DEVICE": "cam-1",
        "UPLINK_TENANT": "acme",
        "UPLINK_SECRET": SECRET,
    }
    settings = load(environment)
    assert (settings.host, settings.port, settings.http) == ("one", 1, "http://one")
    assert (settings.device, settings.tenant, settings.secret, settings.token) == ("cam-1", "acme", SECRET, None)
    assert isinstance(settings.credentials(), SecretCredentials)
    settings = load(environment, server="[::1]:2", http="https://two", device="cam-2", tenant="other")
    assert (settings.host, settings.port, settings.http) == ("::1", 2, "https://two")
    assert (settings.device, settings.tenant) == ("cam-2", "other")


def test_a_secret_file_wins_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    settings = load({"UPLINK_TOKEN": "t", "UPLINK_SECRET": "B" * 43}, secret_file=file, device="cam-1")
    assert (settings.secret, settings.token) == (SECRET, None)


def test_a_person_is_asked_for_the_secret() -> None:
    asked = []

    def prompt(text: str) -> str:
        asked.append(text)
        return SECRET

    assert load_settings(options(device="cam-1"), {}, prompt).secret == SECRET
    assert asked == ["Secret of cam-1: "]


@pytest.mark.parametrize(
    ("environment", "given", "text"),
    [
        ({"UPLINK_TOKEN": "t"}, {"server": "nowhere"}, "write HOST:PORT"),
        ({"UPLINK_TOKEN": "t"}, {"server": "host:99999"}, "write HOST:PORT"),
        ({"UPLINK_TOKEN": "t"}, {"server": ":7710"}, "write HOST:PORT"),
        ({"UPLINK_TOKEN": "t"}, {"http": "127.0.0.1:7780"}, "write a URL"),
        ({"UPLINK_TOKEN": "t"}, {"ca": Path("/nonexistent")}, "certificates in /nonexistent cannot be used"),
        ({"UPLINK_SECRET": SECRET}, {}, "which device"),
        ({"X": ""}, {"device": "cam-1"}, "no credential: set UPLINK_SECRET"),
        ({"UPLINK_SECRET": "short"}, {"device": "cam-1"}, "a device secret"),
        (
            {"X": ""},
            {"device": "cam-1", "secret_file": Path("/nonexistent")},
            "secret file /nonexistent cannot be read",
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    environment: dict[str, str], given: dict[str, str | Path | bool], text: str
) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        load(environment, **given)
    assert SECRET not in str(caught.value)


def test_a_token_does_not_name_the_device() -> None:
    with pytest.raises(UsageError, match="which device"):
        load().device_or_raise()


def test_a_certificate_implies_tls(certificate: Certificate) -> None:
    settings = load(ca=certificate.path)
    assert settings.tls is not None
    assert settings.https is not None
    assert load(tls=True).https is None
    assert load(tls=True).tls is not None
