"""`make install` and `make rollback`: the installed files and their modes, and the fate of earlier releases."""

import os
import re
import shutil
import signal
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.settings import Settings, load
from tests.support.installs import BASE_PYTHON, PROJECT, WHEELS, needs_wheels, offline, run, succeed
from tests.support.umask import umask_set

VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
needs_root_and_systemd = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-sysusers") is None, reason="needs root and systemd-sysusers"
)
pytestmark = [needs_make, needs_wheels]


def make(
    target: str, root: Path, *, python: Path = BASE_PYTHON, wheels: Path = WHEELS
) -> "subprocess.CompletedProcess[str]":
    # A clean environment, so that an outer make does not pass on its flags.
    return run("make", "--silent", target, f"DESTDIR={root}", f"PYTHON={python}", environment=offline(wheels))


def links(root: Path) -> dict[str, str]:
    """The releases that `current` and `previous` point to."""
    found = (root / "opt/uplinkd" / name for name in ("current", "previous"))
    return {link.name: str(link.readlink()) for link in found if link.is_symlink()}


def releases(root: Path) -> set[str]:
    return {path.name for path in (root / "opt/uplinkd").iterdir() if path.is_dir() and not path.is_symlink()}


def add_release(root: Path, name: str) -> Path:
    """Add an earlier release without its Python environment. Its unit file names the release."""
    release = root / "opt/uplinkd" / name
    shutil.copytree(PROJECT / "systemd", release / "share/systemd")
    shutil.move(release / "share/systemd/uplinkd.example.toml", release / "share")
    (release / "share/systemd/uplinkd.service").write_text(f"# {name}\n")
    return release


def point(root: Path, link: str, release: str) -> None:
    (root / "opt/uplinkd" / link).symlink_to(release)


def unit(root: Path) -> str:
    return (root / "etc/systemd/system/uplinkd.service").read_text()


def kill_after_switching(target: str, root: Path, directory: Path) -> None:
    """Run `make install` with a Python that builds nothing, or `make rollback`; kill it once `current` is switched."""
    tools = {
        "mv": '/bin/mv "$@"\ncase "$*" in */current) kill -KILL $PPID ;; esac\n',
        "python": 'case "$2" in venv) mkdir -p "$3/bin" && cp "$0" "$3/bin" ;; esac\n',
    }
    for name, script in tools.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}")
        (directory / name).chmod(0o755)
    environment = {"PATH": f"{directory}:{os.environ['PATH']}", "DESTDIR": str(root)}
    done = run(PROJECT / ".ci/releases", target, directory / "python", environment=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr


@contextmanager
def program_running_in(release: Path) -> Iterator[None]:
    program = release / "program"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "infinity"]) as running:
        try:
            yield
        finally:
            running.kill()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system after a first installation, by root with a umask of 077."""
    root = tmp_path_factory.mktemp("first")
    with umask_set(0o077):
        done = make("install", root)
    assert done.returncode == 0, done.stderr
    return root


class TestFirst:
    def test_every_file_is_installed_in_its_place(self, installed: Path) -> None:
        release = installed / "opt/uplinkd" / VERSION
        environment = {"bin", "include", "lib", "lib64", "pyvenv.cfg"}
        files = {
            str(path.relative_to(installed))
            for path in installed.rglob("*")
            if path.is_symlink() or not path.is_dir()
            if not (path.is_relative_to(release) and path.relative_to(release).parts[0] in environment)
        }
        assert files == {
            "etc/systemd/system/uplinkd.service",
            "etc/systemd/system/uplinkd.socket",
            "etc/systemd/system/uplinkd-http.socket",
            "etc/sysusers.d/uplinkd.conf",
            "etc/tmpfiles.d/uplinkd.conf",
            "etc/uplinkd/uplinkd.toml",
            "opt/uplinkd/.lock",
            "opt/uplinkd/current",
            *(f"opt/uplinkd/{VERSION}/share/{name}" for name in ("LICENSE", "PROTOCOL.md", "README.md")),
            f"opt/uplinkd/{VERSION}/share/uplinkd.example.toml",
            f"opt/uplinkd/{VERSION}/share/systemd/uplinkd.service",
            f"opt/uplinkd/{VERSION}/share/systemd/uplinkd.socket",
            f"opt/uplinkd/{VERSION}/share/systemd/uplinkd-http.socket",
            f"opt/uplinkd/{VERSION}/share/systemd/sysusers.d/uplinkd.conf",
            f"opt/uplinkd/{VERSION}/share/systemd/tmpfiles.d/uplinkd.conf",
            "usr/local/bin/uplink",
            "usr/local/bin/uplinkd",
        }
        assert links(installed) == {"current": VERSION}
        assert (installed / "usr/local/bin/uplinkd").readlink() == Path("/opt/uplinkd/current/bin/uplinkd")

    def test_units_refer_to_the_current_link(self, installed: Path) -> None:
        paths = re.findall(r"/opt/uplinkd/(\w+)/", unit(installed))
        assert len(paths) > 1
        assert set(paths) == {"current"}

    def test_the_program_runs_and_no_development_packages_are_installed(self, installed: Path) -> None:
        binaries = installed / "opt/uplinkd/current/bin"
        assert succeed(binaries / "uplinkd", "--version") == f"uplinkd {VERSION}\n"
        frozen = succeed(binaries / "python", "-m", "pip", "list", "--format=freeze")
        packages = {line.partition("==")[0] for line in frozen.splitlines()}
        assert {"uvloop", "aiohttp"} <= packages
        assert not {"pytest", "mypy", "ruff", "setuptools"} & packages

    def test_the_service_can_read_all_files_whatever_roots_umask(self, installed: Path) -> None:
        files = (path for path in installed.rglob("*") if path.is_file() and not path.is_symlink())
        assert [path for path in files if not path.stat().st_mode & stat.S_IROTH] == []
        directories = (path for path in installed.rglob("*") if path.is_dir())
        assert [path for path in directories if not path.stat().st_mode & stat.S_IXOTH] == []

    def test_the_installed_settings_are_the_defaults_except_the_data_directory(self, installed: Path) -> None:
        settings = load(installed / "etc/uplinkd/uplinkd.toml", {}, {})
        assert settings == Settings(data_dir=Path("/var/lib/uplinkd"))

    @needs_root_and_systemd
    def test_settings_and_data_are_hidden_from_other_users(self, installed: Path, tmp_path: Path) -> None:
        shutil.copytree(installed / "etc", tmp_path / "etc")
        subprocess.run(["systemd-sysusers", f"--root={tmp_path}", "uplinkd.conf"], capture_output=True, check=True)
        subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", "uplinkd.conf"], check=True)
        [user] = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if "uplinkd" in line]
        uid, gid = int(user[2]), int(user[3])
        assert user[5:] == ["/var/lib/uplinkd", "/usr/sbin/nologin"]

        def mode_and_owner(path: str) -> tuple[str, int, int]:
            found = (tmp_path / path).stat()
            return stat.filemode(found.st_mode), found.st_uid, found.st_gid

        assert mode_and_owner("etc/uplinkd") == ("drwxr-x---", 0, gid)
        assert mode_and_owner("etc/uplinkd/uplinkd.toml") == ("-rw-r-----", 0, gid)
        assert mode_and_owner("var/lib/uplinkd") == ("drwx------", uid, gid)


class TestUpgrade:
    def test_the_previous_release_and_the_settings_are_kept_and_older_releases_removed(self, tmp_path: Path) -> None:
        # The release in use already has this version, as when a developer installs again.
        for name in ("0.0.7", "0.0.8", VERSION):
            add_release(tmp_path, name)
        point(tmp_path, "previous", "0.0.8")
        point(tmp_path, "current", VERSION)
        mine = tmp_path / "etc/uplinkd/uplinkd.toml"
        mine.parent.mkdir(parents=True)
        mine.write_text('data_dir = "/srv/uplinkd"\n')
        before = sorted((tmp_path / "opt/uplinkd" / VERSION).rglob("*"))

        done = make("install", tmp_path)

        assert done.returncode == 0, done.stderr
        assert links(tmp_path) == {"current": f"{VERSION}-2", "previous": VERSION}
        assert releases(tmp_path) == {VERSION, f"{VERSION}-2"}
        assert sorted((tmp_path / "opt/uplinkd" / VERSION).rglob("*")) == before
        assert mine.read_text() == 'data_dir = "/srv/uplinkd"\n'
        assert "ExecStart" in unit(tmp_path)

    def test_a_failed_upgrade_leaves_the_release_in_use_unchanged(self, tmp_path: Path) -> None:
        add_release(tmp_path, "0.0.8")
        point(tmp_path, "current", "0.0.8")
        (tmp_path / "wheels").mkdir()

        done = make("install", tmp_path, wheels=tmp_path / "wheels")

        assert done.returncode != 0
        assert links(tmp_path) == {"current": "0.0.8"}
        assert releases(tmp_path) == {"0.0.8"}
        assert not (tmp_path / "etc").exists()

    def test_a_release_with_a_running_program_is_not_removed(self, tmp_path: Path) -> None:
        for name in ("0.0.6", "0.0.7", "0.0.8"):
            add_release(tmp_path, name)
        point(tmp_path, "current", "0.0.8")
        (tmp_path / "wheels").mkdir()
        with program_running_in(tmp_path / "opt/uplinkd/0.0.7"):
            # Old releases are removed before anything is installed.
            make("install", tmp_path, wheels=tmp_path / "wheels")
            assert releases(tmp_path) == {"0.0.7", "0.0.8"}

    @pytest.mark.parametrize(
        ("python", "message"),
        [("nowhere", "is not installed"), ("old", "Python 3.10.9 is too old"), ("bare", "python3-venv")],
    )
    def test_an_unsuitable_python_is_refused_before_anything_is_written(
        self, tmp_path: Path, python: str, message: str
    ) -> None:
        # "old" fails the version check but prints its version; "bare" fails to import venv.
        question = {"old": "version_info", "bare": "ensurepip"}.get(python, "")
        if python != "nowhere":
            answers = f'case "$2" in *{question}*) exit 1 ;; esac\necho Python 3.10.9\n'
            (tmp_path / python).write_text(f"#!/bin/sh\n{answers}")
            (tmp_path / python).chmod(0o755)
        done = make("install", tmp_path / "root", python=tmp_path / python)
        assert done.returncode != 0
        assert message in done.stderr
        assert not (tmp_path / "root").exists()


class TestRollback:
    @pytest.fixture
    def upgraded(self, tmp_path: Path) -> Path:
        for link, name in (("previous", "0.0.8"), ("current", "0.0.9")):
            add_release(tmp_path, name)
            point(tmp_path, link, name)
        return tmp_path

    def test_the_previous_release_is_in_use_again_with_its_units(self, upgraded: Path) -> None:
        assert make("rollback", upgraded).returncode == 0
        assert links(upgraded) == {"current": "0.0.8", "previous": "0.0.9"}
        assert unit(upgraded) == "# 0.0.8\n"

    def test_a_second_rollback_switches_forward_again(self, upgraded: Path) -> None:
        make("rollback", upgraded)
        assert make("rollback", upgraded).returncode == 0
        assert links(upgraded) == {"current": "0.0.9", "previous": "0.0.8"}
        assert unit(upgraded) == "# 0.0.9\n"

    def test_a_rollback_that_was_killed_can_be_undone(
        self, upgraded: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        kill_after_switching("rollback", upgraded, tmp_path_factory.mktemp("tools"))
        assert links(upgraded)["current"] == "0.0.8"
        assert unit(upgraded) == "# 0.0.8\n"
        assert make("rollback", upgraded).returncode == 0
        assert links(upgraded) == {"current": "0.0.9", "previous": "0.0.8"}

    def test_no_release_is_skipped_after_an_upgrade_that_was_killed(
        self, upgraded: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        kill_after_switching("install", upgraded, tmp_path_factory.mktemp("tools"))
        assert links(upgraded)["current"] == VERSION
        assert make("rollback", upgraded).returncode == 0
        assert links(upgraded) == {"current": "0.0.9", "previous": VERSION}

    def test_a_switch_that_was_killed_before_it_was_made_is_forgotten(self, upgraded: Path) -> None:
        point(upgraded, ".previous", "0.0.9")
        assert make("rollback", upgraded).returncode == 0
        assert links(upgraded) == {"current": "0.0.8", "previous": "0.0.9"}

    def test_units_that_the_release_does_not_have_are_removed(self, upgraded: Path) -> None:
        units = upgraded / "etc/systemd/system"
        newer = upgraded / "opt/uplinkd/0.0.9/share/systemd"
        for name in ("uplinkd-new.socket", "uplinkd-edited.service"):
            (newer / name).write_text("# of 0.0.9\n")
        make("rollback", upgraded)
        make("rollback", upgraded)
        (units / "uplinkd-edited.service").write_text("# edited\n")
        (units / "other.service").write_text("# of another program\n")
        before = {path.name for path in units.iterdir()}
        assert make("rollback", upgraded).returncode == 0
        assert before - {path.name for path in units.iterdir()} == {"uplinkd-new.socket"}

    def test_without_a_previous_release_rollback_fails(self, tmp_path: Path) -> None:
        add_release(tmp_path, "0.0.9")
        point(tmp_path, "current", "0.0.9")
        done = make("rollback", tmp_path)
        assert done.returncode != 0
        assert "no release before 0.0.9" in done.stderr
        assert links(tmp_path) == {"current": "0.0.9"}

    def test_without_an_installation_rollback_fails(self, tmp_path: Path) -> None:
        done = make("rollback", tmp_path)
        assert done.returncode != 0
        assert "nothing is installed" in done.stderr
