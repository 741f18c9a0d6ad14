"""`make install-files`: what lands where, with which owner and mode."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from daemon.settings import Settings, load

PROJECT = Path(__file__).parents[2]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
needs_root_and_systemd = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-sysusers") is None, reason="needs root and systemd-sysusers"
)


def install(root: Path, umask: int = 0o022) -> None:
    # A fresh environment, so that a make above this one does not hand its flags down.
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run(
        ["make", "--silent", "install-files", f"DESTDIR={root}"],
        cwd=PROJECT,
        env=environment,
        umask=umask,
        capture_output=True,
        check=True,
    )


@needs_make
def test_every_file_lands_where_the_system_looks(tmp_path: Path) -> None:
    install(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert files == {
        "etc/systemd/system/uplinkd.service",
        "etc/systemd/system/uplinkd.socket",
        "etc/systemd/system/uplinkd-http.socket",
        "etc/sysusers.d/uplinkd.conf",
        "etc/tmpfiles.d/uplinkd.conf",
        "etc/uplinkd/uplinkd.toml",
        "opt/uplinkd/share/LICENSE",
        "opt/uplinkd/share/PROTOCOL.md",
        "opt/uplinkd/share/README.md",
        "opt/uplinkd/share/uplinkd.example.toml",
        "usr/local/bin/uplink",
        "usr/local/bin/uplinkd",
    }
    assert (tmp_path / "usr/local/bin/uplinkd").readlink() == Path("/opt/uplinkd/.venv/bin/uplinkd")


@needs_make
def test_the_service_can_read_all_of_it_whatever_roots_umask(tmp_path: Path) -> None:
    install(tmp_path, umask=0o077)
    files = (path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink())
    assert [path for path in files if not path.stat().st_mode & stat.S_IROTH] == []


@needs_make
def test_the_installed_settings_are_the_defaults_with_the_data_of_the_service(tmp_path: Path) -> None:
    install(tmp_path)
    settings = load(tmp_path / "etc/uplinkd/uplinkd.toml", {}, {})
    assert settings == Settings(data_dir=Path("/var/lib/uplinkd"))


@needs_make
def test_an_upgrade_keeps_the_operators_settings(tmp_path: Path) -> None:
    install(tmp_path)
    mine = tmp_path / "etc/uplinkd/uplinkd.toml"
    mine.write_text('data_dir = "/srv/uplinkd"\n')
    install(tmp_path)
    assert mine.read_text() == 'data_dir = "/srv/uplinkd"\n'


@needs_make
@needs_root_and_systemd
def test_settings_and_data_are_hidden_from_other_users(tmp_path: Path) -> None:
    install(tmp_path)
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", "uplinkd.conf"], capture_output=True, check=True)
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", "uplinkd.conf"], check=True)
    [user] = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if "uplinkd" in line]
    uid, gid = int(user[2]), int(user[3])
    assert user[5:] == ["/var/lib/uplinkd", "/usr/sbin/nologin"]

    def seen(path: str) -> tuple[str, int, int]:
        found = (tmp_path / path).stat()
        return stat.filemode(found.st_mode), found.st_uid, found.st_gid

    assert seen("etc/uplinkd") == ("drwxr-x---", 0, gid)
    assert seen("etc/uplinkd/uplinkd.toml") == ("-rw-r-----", 0, gid)
    assert seen("var/lib/uplinkd") == ("drwx------", uid, gid)
