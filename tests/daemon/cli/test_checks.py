"""The checks of check-config, on real files."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.adapters.entropy import SystemEntropy
from daemon.adapters.files import SystemFiles
from daemon.admin.unix_socket import PATH_BYTES_MAX
from daemon.cli.checks import Check, Effective, Finding, effective, findings
from daemon.identity.keys import ensure_secret_file
from daemon.settings import Settings, keys, load

DESCRIPTORS = 65_536
"""The limit that the unit sets."""


def findings_of(settings: Settings) -> dict[Check, Finding]:
    return {each.check: each for each in findings(settings, SystemFiles(), SystemEntropy(), DESCRIPTORS)}


def settings_of(tmp_path: Path, **flags: str) -> Settings:
    given = {key.replace("__", "."): value for key, value in flags.items()}
    return load(None, {}, {"data_dir": str(tmp_path), **given})


class TestEffective:
    def test_each_key_is_listed_once_with_the_origin_that_wins(self, tmp_path: Path) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_text('data_dir = "one"\n[listen]\nport = 1\nhost = "::1"\n[limits]\nstreams_max = 3\n')
        environment = {"UPLINKD_LISTEN__PORT": "2", "UPLINKD_LIMITS__STREAMS_MAX": "4", "HOME": "/"}
        flags = {"limits.streams_max": "5"}
        shown = effective(load(file, environment, flags), file, environment, flags)
        assert tuple(each.key for each in shown) == keys()
        by_key = {each.key: each for each in shown}
        assert by_key["data_dir"] == Effective("data_dir", "one", f"file {file}")
        assert by_key["listen.host"] == Effective("listen.host", "::1", f"file {file}")
        assert by_key["listen.port"] == Effective("listen.port", 2, "environment UPLINKD_LISTEN__PORT")
        assert by_key["limits.streams_max"] == Effective("limits.streams_max", 5, "flag")
        assert by_key["http.port"] == Effective("http.port", 7780, "default")
        assert by_key["admin_socket"] == Effective("admin_socket", None, "default")
        assert by_key["auth.public_keys"] == Effective("auth.public_keys", [], "default")

    def test_without_a_file(self) -> None:
        assert {each.origin for each in effective(Settings(), None, {}, {})} == {"default"}


class TestDataDirectory:
    def test_a_writable_directory_is_left_unchanged(self, tmp_path: Path) -> None:
        finding = findings_of(settings_of(tmp_path))[Check.DATA_DIRECTORY]
        assert finding.is_good
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_directory_is_not_made(self, tmp_path: Path) -> None:
        finding = findings_of(settings_of(tmp_path / "a" / "b"))[Check.DATA_DIRECTORY]
        assert finding.is_good
        assert f"will be made in {tmp_path}" in finding.detail
        assert list(tmp_path.iterdir()) == []

    def test_a_file_in_its_place_fails(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        finding = findings_of(settings_of(tmp_path / "file"))[Check.DATA_DIRECTORY]
        assert not finding.is_good
        assert "cannot be written: Not a directory; check data_dir" in finding.detail


class TestKeys:
    def test_the_check_makes_no_secret(self, tmp_path: Path) -> None:
        finding = findings_of(settings_of(tmp_path))[Check.KEYS]
        assert finding.is_good
        assert "will be made at the first start" in finding.detail
        assert not (tmp_path / "secret").exists()

    def test_an_existing_secret_is_read_but_not_shown(self, tmp_path: Path) -> None:
        ensure_secret_file(tmp_path / "secret", SystemEntropy())
        finding = findings_of(settings_of(tmp_path))[Check.KEYS]
        assert finding == Finding(Check.KEYS, True, "1 for HS256")

    def test_a_secret_that_others_can_read_fails(self, tmp_path: Path) -> None:
        ensure_secret_file(tmp_path / "secret", SystemEntropy())
        (tmp_path / "secret").chmod(0o644)
        finding = findings_of(settings_of(tmp_path))[Check.KEYS]
        assert not finding.is_good
        assert "chmod 600" in finding.detail

    def test_a_missing_key_file_fails(self, tmp_path: Path) -> None:
        finding = findings_of(settings_of(tmp_path, auth__public_keys=str(tmp_path / "key.pem")))[Check.KEYS]
        assert not finding.is_good
        assert "key.pem" in finding.detail


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    root = tmp_path_factory.mktemp("tls")
    made = Pair(root / "tls.crt", root / "tls.key")
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*request.split(), "-keyout", str(made.key), "-out", str(made.certificate)], check=True, capture_output=True
    )
    return made


class TestTls:
    def finding(self, tmp_path: Path, certificate: Path, key: Path) -> Finding:
        settings = settings_of(tmp_path, listen__tls_certificate=str(certificate), listen__tls_key=str(key))
        return findings_of(settings)[Check.TLS]

    def test_tls_is_off_by_default(self, tmp_path: Path) -> None:
        assert findings_of(settings_of(tmp_path))[Check.TLS] == Finding(Check.TLS, True, "off: plain TCP")

    def test_a_matching_pair_passes(self, tmp_path: Path, pair: Pair) -> None:
        assert self.finding(tmp_path, pair.certificate, pair.key).is_good

    def test_missing_files_fail(self, tmp_path: Path) -> None:
        finding = self.finding(tmp_path, tmp_path / "no.crt", tmp_path / "no.key")
        assert not finding.is_good
        assert "No such file" in finding.detail

    def test_files_that_are_not_pem_fail(self, tmp_path: Path, pair: Pair) -> None:
        other = tmp_path / "other"
        other.write_text("no PEM")
        assert not self.finding(tmp_path, other, pair.key).is_good
        assert not self.finding(tmp_path, pair.certificate, other).is_good


class TestAdminSocket:
    def test_the_data_directory_need_not_exist(self, tmp_path: Path) -> None:
        assert findings_of(settings_of(tmp_path))[Check.ADMIN_SOCKET].is_good

    def test_any_other_directory_must_exist(self, tmp_path: Path) -> None:
        there = settings_of(tmp_path / "data", admin_socket=str(tmp_path / "admin.sock"))
        assert findings_of(there)[Check.ADMIN_SOCKET].is_good
        absent = settings_of(tmp_path, admin_socket=str(tmp_path / "run" / "admin.sock"))
        assert "make it, or set admin_socket" in findings_of(absent)[Check.ADMIN_SOCKET].detail

    def test_a_path_that_is_too_long_fails(self, tmp_path: Path) -> None:
        long = settings_of(tmp_path, admin_socket=str(tmp_path / ("x" * PATH_BYTES_MAX)))
        finding = findings_of(long)[Check.ADMIN_SOCKET]
        assert not finding.is_good
        assert "shorter admin_socket" in finding.detail


class TestDescriptors:
    def test_enough(self, tmp_path: Path) -> None:
        finding = findings_of(settings_of(tmp_path))[Check.DESCRIPTORS]
        assert finding == Finding(Check.DESCRIPTORS, True, "65536, of which 15608 may be needed")

    def test_too_few_are_a_warning_with_numbers_since_the_daemon_can_start(self, tmp_path: Path) -> None:
        many = settings_of(tmp_path, limits__connections_max="100000")
        finding = findings_of(many)[Check.DESCRIPTORS]
        assert finding.is_good
        assert "warning: this command may have 65536, but the settings may need 105608" in finding.detail
