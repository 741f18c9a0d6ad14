"""docs/http.md is true: its shell examples run as they stand, one after the other, against a real daemon."""

import asyncio
import hashlib
import os
import random
import re
import shutil
from pathlib import Path

import pytest

from device.client import Uplink
from device.credentials import TokenCredentials
from protocol.errors import ErrorCode
from tests.support.daemon_process import PROGRAM
from tests.support.deadlines import PROCESS_S
from tests.support.scene import scene

DOCUMENT = (Path(__file__).parents[1] / "docs" / "http.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)

DATA = random.Random(7780).randbytes(700_001)

MISSING = [tool for tool in ("bash", "curl", "jq") if shutil.which(tool) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
async def test_the_examples_run(tmp_path: Path) -> None:
    data_dir, work = tmp_path / "data", tmp_path / "work"
    work.mkdir()
    async with scene(data_dir) as live:
        async with Uplink(*live.address, TokenCredentials(live.token("camera-1"))) as uplink:
            for number in range(120):
                await uplink.send(b"small", f"logs/{number}")
            sent = await uplink.send(DATA, "clips/clip.bin", sha256=hashlib.sha256(DATA).digest())
        host, port = live.daemon.addresses.http
        script = "\n".join(EXAMPLES).replace("http://127.0.0.1:7780", f"http://{host}:{port}")
        environment = os.environ | {
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "UPLINKD_DATA_DIR": str(data_dir),
        }
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            cwd=work,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PROCESS_S):
            said, complaints = (output.decode() for output in await shell.communicate())
        assert (shell.returncode, complaints) == (0, ""), said
        assert (await live.http.get(f"/v1/files/{sent.upload_id:016x}", token=live.operator)).json()[
            "state"
        ] == "deleted"
    assert (work / "file.bin").read_bytes() == DATA
    assert said.count("camera-1\tlogs/") == 120, "the loop goes through all pages"
    assert f"{hashlib.sha256(DATA).hexdigest()}  file.bin\n" in said
    assert "\n100\n304\n" in said


def test_the_names_of_errors_are_the_registrys() -> None:
    table = DOCUMENT.partition("## When something fails")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| [0-9, ]+ \| (.+?) \|", table, re.MULTILINE))
    assert {name.strip("` ") for names in named for name in names.split(",")} <= {code.name for code in ErrorCode}
    assert len(named) > 5
