"""`make help` lists every target that people call, and nothing else."""

import re
import shutil

import pytest

from tests.support.installs import PROJECT, succeed


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_help_lists_every_target() -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^make (\w+) +\S", succeed("make", "--silent", "help"), re.MULTILINE)
    assert listed
    assert sorted(listed) == sorted(phony.split())
