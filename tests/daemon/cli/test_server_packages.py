"""Finds the missing packages of the extra `server` by the installed metadata."""

from importlib.metadata import requires

import pytest

from daemon.cli.server_packages import missing


def test_no_package_is_missing_here() -> None:
    of_server = [line for line in requires("uplinkd") or () if "server" in line]
    assert of_server
    assert missing(of_server) == []


@pytest.mark.parametrize(
    "line",
    [
        'not-there.at_all>=1; extra == "server"',
        "not-there.at_all[crypto]>=1 ; extra == 'server'",
        'not-there.at_all ; python_version >= "3.11" and extra == "server"',
    ],
)
def test_a_missing_server_package_is_named(line: str) -> None:
    assert missing([line]) == ["not-there.at_all"]


def test_packages_of_other_extras_are_ignored() -> None:
    assert missing(["not-there>=1", 'not-there>=1; extra == "dev"']) == []
