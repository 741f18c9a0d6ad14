"""Which of the server's packages are missing, read off the installed metadata."""

from importlib.metadata import requires

import pytest

from daemon.cli.server_packages import missing


def test_this_environment_lacks_none() -> None:
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
def test_a_package_of_the_server_that_is_not_installed_is_named(line: str) -> None:
    assert missing([line]) == ["not-there.at_all"]


def test_packages_of_other_extras_are_nobodys_business_here() -> None:
    assert missing(["not-there>=1", 'not-there>=1; extra == "dev"']) == []
