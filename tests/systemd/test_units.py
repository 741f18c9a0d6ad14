"""The unit files: systemd accepts every line, the service is hardened, and the units match the settings."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.policies import descriptor_budget
from daemon.settings import Settings

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "uplinkd.service"
SOCKETS = {"devices": UNITS / "uplinkd.socket", "http": UNITS / "uplinkd-http.socket"}

EXPOSURE_MAX = 1.2

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


class Unit(configparser.RawConfigParser):
    """A unit file. Of a repeated key only the last value is kept, which is enough for the keys read here."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#", ";"), interpolation=None)
        self.read_string(path.read_text(encoding="utf-8"))

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def seconds(span: str) -> int:
    match = re.fullmatch(r"(\d+)(s|min|)", span)
    assert match is not None, span
    return int(match[1]) * (60 if match[2] == "min" else 1)


@needs_systemd
def test_systemd_accepts_every_line_without_a_warning(tmp_path: Path) -> None:
    for unit in (SERVICE, *SOCKETS.values()):
        text = unit.read_text(encoding="utf-8")
        # uplinkd is not installed where the tests run.
        (tmp_path / unit.name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text), encoding="utf-8")
    result = analyze("verify", *(str(unit) for unit in sorted(tmp_path.iterdir())))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
def test_the_exposure_level_of_the_service_is_low() -> None:
    result = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX * 10:.0f}", str(SERVICE))
    exposure = re.search(r"Overall exposure level for uplinkd\.service: ([0-9.]+)", result.stdout)
    assert exposure is not None, result.stderr
    assert float(exposure[1]) <= EXPOSURE_MAX
    assert result.returncode == 0


def test_the_sockets_listen_on_the_addresses_of_the_default_settings() -> None:
    settings = Settings()
    devices, http = (Unit(SOCKETS[name])["Socket"] for name in ("devices", "http"))
    # Without an address the socket listens on all IPv6 and IPv4 addresses, since devices connect from anywhere.
    assert devices["ListenStream"] == str(settings.listen.port)
    assert http["ListenStream"] == f"{settings.http.host}:{settings.http.port}"
    assert devices["Backlog"] == str(settings.listen.backlog)


@pytest.mark.parametrize("name", SOCKETS)
def test_each_socket_has_its_name_and_its_service(name: str) -> None:
    socket = Unit(SOCKETS[name])["Socket"]
    assert socket["FileDescriptorName"] == name
    assert socket["Service"] == SERVICE.name


def test_the_stop_timeout_is_longer_than_a_drain() -> None:
    assert seconds(Unit(SERVICE)["Service"]["TimeoutStopSec"]) > Settings().drain.timeout_s


def test_the_descriptor_limit_allows_all_that_the_settings_do() -> None:
    budget = descriptor_budget(Settings(), int(Unit(SERVICE)["Service"]["LimitNOFILE"]))
    assert not budget.is_short
    assert f"{budget.wanted:,}" in SERVICE.read_text(encoding="utf-8")


def test_the_data_directory_is_the_services_state_directory() -> None:
    service = Unit(SERVICE)["Service"]
    assert service["StateDirectory"] == "uplinkd"
    assert "UPLINKD_DATA_DIR=%S/uplinkd" in SERVICE.read_text(encoding="utf-8")
    assert "/var/lib/uplinkd" in (UNITS / "tmpfiles.d" / "uplinkd.conf").read_text(encoding="utf-8")
