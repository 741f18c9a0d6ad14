"""The service under a real systemd: socket activation, readiness, reload, watchdog, drain and restart."""

from collections.abc import Iterator

import pytest

from tests.support.systemd_machine import Machine, Unable, booted

UNIT = "uplinkd.service"
SOCKETS = ("uplinkd.socket", "uplinkd-http.socket")
SETTINGS = ("--config", "/etc/uplinkd/uplinkd.toml")
READYZ = "http://127.0.0.1:7780/readyz"

# All tests of this file use one machine, so they must run in one process.


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    try:
        with booted(tmp_path_factory.mktemp("nested") / "machine") as booted_machine:
            booted_machine.make("install")
            yield booted_machine
    except Unable as reason:
        pytest.skip(str(reason))


@pytest.fixture(autouse=True)
def stopped(machine: Machine) -> Iterator[None]:
    """Start each test with open sockets and no daemon."""
    machine.run("systemctl", "start", *SOCKETS)
    yield
    machine.run("systemctl", "stop", UNIT, *SOCKETS)
    machine.attempt("systemctl", "reset-failed", UNIT)


def main_pid(machine: Machine) -> int:
    return int(machine.show(UNIT, "MainPID"))


def enrol(machine: Machine, device: str) -> str:
    """Add a device. Returns its secret."""
    return machine.run("uplinkd", "device", "add", device, "--quiet", *SETTINGS).strip()


def ask(machine: Machine, url: str) -> str:
    return machine.run("curl", "--silent", "--show-error", "--fail", "--max-time", "60", url)


def test_the_first_http_connection_starts_the_service(machine: Machine) -> None:
    assert machine.show(UNIT, "ActiveState") == "inactive"
    ask(machine, READYZ)
    machine.wait("the service is active", lambda: machine.show(UNIT, "ActiveState") == "active")
    assert machine.show(UNIT, "StatusText") != ""


def test_a_connection_to_the_device_port_starts_the_service(machine: Machine) -> None:
    machine.run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7710")
    machine.wait("the service is active", lambda: machine.show(UNIT, "ActiveState") == "active")


def test_active_means_ready(machine: Machine) -> None:
    """`systemctl start` returns once the daemon has sent READY=1, and then it serves requests."""
    machine.run("systemctl", "start", UNIT)
    ask(machine, READYZ)


def test_the_service_runs_as_its_own_user_and_its_data_is_private(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    assert machine.run("stat", "--format=%U", f"/proc/{main_pid(machine)}").strip() == "uplinkd"
    modes = machine.run("find", "/var/lib/uplinkd", "-not", "-type", "l", "-printf", "%m %u\n").splitlines()
    assert {line.split()[1] for line in modes} == {"uplinkd"}
    assert {line.split()[0][-2:] for line in modes} == {"00"}


def test_a_device_is_enrolled_through_the_admin_socket(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    enrol(machine, "nested-1")
    assert "nested-1" in machine.run("uplinkd", "device", "list", *SETTINGS)


def test_a_file_survives_a_restart(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    device = ("env", "UPLINK_DEVICE=nested-2", f"UPLINK_SECRET={enrol(machine, 'nested-2')}", "uplink")
    machine.run(*device, "send", "/usr/bin/bash", "--name", "shell")
    machine.run("systemctl", "restart", UNIT)
    machine.run(*device, "get", "shell", "--output", "/tmp/shell")
    machine.run("cmp", "/usr/bin/bash", "/tmp/shell")


def test_nginx_can_be_allowed_to_read_files_and_nothing_else(machine: Machine) -> None:
    """The steps of docs/http.md. The unit's sandbox and umask stay as they are."""
    drop_in = "/run/systemd/system/uplinkd.service.d"
    machine.run("mkdir", "-p", drop_in)
    machine.write(f"{drop_in}/nginx.conf", "[Service]\nStateDirectoryMode=0711\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", UNIT)
    rights = "group:www-data:rX,default:group:www-data:rX"
    machine.run("setfacl", "-R", "-m", rights, "/var/lib/uplinkd/files")
    device = ("env", "UPLINK_DEVICE=nested-3", f"UPLINK_SECRET={enrol(machine, 'nested-3')}", "uplink")
    machine.run(*device, "send", "/usr/bin/bash", "--name", "for-nginx")
    machine.run("systemctl", "restart", UNIT)
    newest = machine.run("sh", "-c", "find /var/lib/uplinkd/files -type f -printf '%T@ %p\n' | sort -n | tail -n 1")
    path = newest.split()[1]
    as_worker = ("runuser", "--user", "www-data", "--")
    machine.run(*as_worker, "cmp", "/usr/bin/bash", path)
    for closed in ("/var/lib/uplinkd/secret", "/var/lib/uplinkd", "/etc/uplinkd/uplinkd.toml"):
        assert machine.attempt(*as_worker, "test", "-r", closed).returncode == 1
    machine.run("rm", "-r", drop_in)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", UNIT)
    assert machine.attempt(*as_worker, "cat", path).returncode == 1
    machine.run("setfacl", "-R", "-b", "/var/lib/uplinkd/files")
    machine.run("chmod", "-R", "g=,o=", "/var/lib/uplinkd/files")


def test_a_reload_keeps_the_process_and_notifies_systemd(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    before = main_pid(machine)
    lines = len(machine.journal().splitlines())
    machine.run("systemctl", "reload", UNIT)
    machine.wait("the reload is logged", lambda: "reload" in "".join(machine.journal().splitlines()[lines:]).lower())
    machine.wait("the service is active again", lambda: machine.show(UNIT, "ActiveState") == "active")
    assert main_pid(machine) == before
    ask(machine, READYZ)


def test_the_watchdog_restarts_a_hanging_daemon(machine: Machine) -> None:
    machine.run("mkdir", "-p", "/run/systemd/system/uplinkd.service.d")
    machine.write("/run/systemd/system/uplinkd.service.d/test.conf", "[Service]\nWatchdogSec=2\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", UNIT)
    hung = main_pid(machine)
    machine.run("kill", "-STOP", str(hung))
    machine.wait("another process runs", lambda: main_pid(machine) not in {0, hung})
    machine.wait("it is ready", lambda: machine.show(UNIT, "ActiveState") == "active")
    assert machine.show(UNIT, "NRestarts") == "1"
    assert "watchdog" in machine.journal().lower()
    ask(machine, READYZ)
    machine.run("rm", "-r", "/run/systemd/system/uplinkd.service.d")
    machine.run("systemctl", "daemon-reload")


def test_systemd_restarts_a_crashed_daemon(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    crashed = main_pid(machine)
    machine.run("kill", "-KILL", str(crashed))
    machine.wait("another process runs", lambda: main_pid(machine) not in {0, crashed})
    ask(machine, READYZ)


def test_a_stop_drains_the_daemon_and_leaves_the_ports_open(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    machine.run("systemctl", "stop", UNIT)
    assert machine.show(UNIT, "Result") == "success"
    assert machine.show(UNIT, "ExecMainStatus") == "0"
    ask(machine, READYZ)
    machine.wait("the service is active", lambda: machine.show(UNIT, "ActiveState") == "active")


def test_without_socket_units_the_daemon_opens_the_ports_of_its_settings(machine: Machine) -> None:
    machine.run("systemctl", "stop", *SOCKETS)
    machine.run("systemctl", "start", UNIT)
    ask(machine, READYZ)
    machine.run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7710")


def test_bad_settings_are_logged_and_the_service_fails(machine: Machine) -> None:
    kept = machine.run("cat", "/etc/uplinkd/uplinkd.toml")
    machine.write("/etc/uplinkd/uplinkd.toml", "[limits]\nstreams_max = -1\n")
    try:
        assert machine.attempt("systemctl", "start", UNIT).returncode != 0
        assert "limits.streams_max" in machine.journal()
        # systemd does not restart it, because that would not repair the file.
        assert machine.show(UNIT, "ActiveState") == "failed"
        assert machine.show(UNIT, "NRestarts") == "0"
    finally:
        machine.write("/etc/uplinkd/uplinkd.toml", kept)


def release(machine: Machine) -> str:
    """The release that the daemon runs from."""
    python, *_ = machine.run("cat", f"/proc/{main_pid(machine)}/cmdline").split("\0")
    return python.removeprefix("/opt/uplinkd/").partition("/")[0]


def test_an_upgrade_and_its_rollback_each_wait_for_a_restart(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    before, first = main_pid(machine), release(machine)
    machine.make("install")
    assert main_pid(machine) == before
    ask(machine, READYZ)
    machine.run("systemctl", "restart", UNIT)
    assert release(machine) == f"{first}-2"
    ask(machine, READYZ)
    machine.make("rollback")
    machine.run("systemctl", "restart", UNIT)
    assert release(machine) == first
    ask(machine, READYZ)
