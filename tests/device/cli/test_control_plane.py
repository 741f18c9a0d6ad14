"""List, find, download and delete over HTTP, against the real control plane."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from device.cli.control_plane import (
    ATTEMPTS_MAX,
    ControlPlane,
    ControlPlaneError,
    DigestError,
    NoAnswerError,
    TargetError,
)
from tests.support import fake_control_plane
from tests.support.fake_control_plane import FakeControlPlane, cut_after, says
from tests.support.fake_time import FakeTime

DATA = random.Random(9110).randbytes(3_000_000)


@pytest.fixture
async def fake() -> AsyncIterator[FakeControlPlane]:
    async with fake_control_plane.running() as running:
        yield running


@pytest.fixture
async def client(fake: FakeControlPlane, time: FakeTime) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(fake.url, token="operator", sleep=time.sleep, random=lambda: 0.4) as client:
        yield client


def ignore(count: int) -> None:
    """Ignore the progress."""


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def ranges_asked(fake: FakeControlPlane) -> list[str | None]:
    return [asked for _, path, asked in fake.requests if path.endswith("/content")]


async def test_a_secret_is_exchanged_for_a_token(fake: FakeControlPlane) -> None:
    fake.world.token_exchange.secrets[("acme", "cam-1")] = "s3cret"
    async with ControlPlane(fake.url) as client:
        await client.exchange("acme", "cam-1", "s3cret")
        assert client._token == "token-of-cam-1"
        with pytest.raises(ControlPlaneError) as caught:
            await client.exchange("acme", "cam-1", "wrong")
    assert caught.value.status == 401


async def test_all_pages_are_listed(fake: FakeControlPlane, client: ControlPlane) -> None:
    for n in range(250):
        fake.put(b"x" * n, f"log-{n}")
    listed = [file async for file in client.files("cam-1", ("complete",), "log-1")]
    names = [f"log-{n}" for n in reversed(range(250)) if str(n).startswith("1")]
    assert [file.name for file in listed] == names
    assert (listed[0].size, listed[0].state, listed[0].device) == (199, "complete", "cam-1")
    everything = [file.name async for file in client.files(None, (), None)]
    assert len(everything) == len(set(everything)) == 250


async def test_any_name_is_found(fake: FakeControlPlane, client: ControlPlane) -> None:
    name = "logs/2026 ü?#%2F.bin"
    file = fake.put(DATA, name)
    found = await client.find("cam-1", name)
    assert (found.id, found.name, found.size) == (f"{file.id:016x}", name, len(DATA))
    with pytest.raises(ControlPlaneError) as caught:
        await client.find("cam-1", "other")
    assert caught.value.status == 404
    assert "other" in str(caught.value) or "file" in str(caught.value)


async def test_a_file_is_deleted(fake: FakeControlPlane, client: ControlPlane) -> None:
    fake.put(DATA)
    await client.delete(await client.find("cam-1", "log.bin"))
    assert (await client.find("cam-1", "log.bin")).state == "deleted"


async def test_a_download_is_the_file(fake: FakeControlPlane, client: ControlPlane, tmp_path: Path) -> None:
    fake.put(DATA)
    seen: list[int] = []
    await client.download(await client.find("cam-1", "log.bin"), tmp_path / "log", seen.append)
    assert (tmp_path / "log").read_bytes() == DATA
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    assert names_in(tmp_path) == ["log"]


async def test_an_empty_file_needs_no_request(fake: FakeControlPlane, client: ControlPlane, tmp_path: Path) -> None:
    fake.put(b"")
    await client.download(await client.find("cam-1", "log.bin"), tmp_path / "log", ignore)
    assert (tmp_path / "log").read_bytes() == b""
    assert ranges_asked(fake) == []


async def test_a_download_that_was_cut_resumes(
    fake: FakeControlPlane, client: ControlPlane, tmp_path: Path, time: FakeTime
) -> None:
    fake.put(DATA)
    file = await client.find("cam-1", "log.bin")
    fake.answers.extend(cut_after(fake, DATA, count) for count in (1000, 0, 500_000))
    await client.download(file, tmp_path / "log", lambda count: setattr(fake, "progress", count))
    assert (tmp_path / "log").read_bytes() == DATA
    assert ranges_asked(fake) == [None, "bytes=1000-", "bytes=1000-", "bytes=501000-"]
    assert time.slept == [0.4, 0.8, 0.4]


async def test_a_later_download_resumes_from_the_part(
    fake: FakeControlPlane, client: ControlPlane, tmp_path: Path
) -> None:
    fake.put(DATA)
    (tmp_path / "log.part").write_bytes(DATA[:1_234_567])
    await client.download(await client.find("cam-1", "log.bin"), tmp_path / "log", ignore)
    assert (tmp_path / "log").read_bytes() == DATA
    assert ranges_asked(fake) == ["bytes=1234567-"]


@pytest.mark.parametrize("part", [bytes(5000), bytes(len(DATA)), bytes(len(DATA) + 1)], ids=["part", "whole", "more"])
async def test_a_part_of_another_file_is_downloaded_again(
    part: bytes, fake: FakeControlPlane, client: ControlPlane, tmp_path: Path
) -> None:
    fake.put(DATA)
    (tmp_path / "log.part").write_bytes(part)
    await client.download(await client.find("cam-1", "log.bin"), tmp_path / "log", ignore)
    assert (tmp_path / "log").read_bytes() == DATA
    assert ranges_asked(fake)[-1] is None


async def test_a_server_that_ignores_the_range_is_understood(
    fake: FakeControlPlane, client: ControlPlane, tmp_path: Path
) -> None:
    fake.put(DATA)
    (tmp_path / "log.part").write_bytes(DATA[:5000])
    file = await client.find("cam-1", "log.bin")
    fake.answers.append(says(200, DATA))
    await client.download(file, tmp_path / "log", ignore)
    assert (tmp_path / "log").read_bytes() == DATA


@pytest.mark.parametrize("had", [b"", b"other"])
async def test_a_wrong_digest_leaves_no_file(
    had: bytes, fake: FakeControlPlane, client: ControlPlane, tmp_path: Path
) -> None:
    file = fake.put(DATA)
    fake.world.contents.data[file.id] = bytes(len(DATA))
    if had:
        (tmp_path / "log.part").write_bytes(had)
    with pytest.raises(DigestError, match=r"log\.bin do not have the digest"):
        await client.download(await client.find("cam-1", "log.bin"), tmp_path / "log", ignore)
    assert names_in(tmp_path) == []


async def test_a_server_that_sends_nothing_is_given_up(
    fake: FakeControlPlane, client: ControlPlane, tmp_path: Path, time: FakeTime
) -> None:
    fake.put(DATA)
    file = await client.find("cam-1", "log.bin")
    fake.answers.extend([says(200, b"")] * ATTEMPTS_MAX)
    with pytest.raises(NoAnswerError, match="sent nothing of"):
        await client.download(file, tmp_path / "log", ignore)
    assert len(time.slept) == ATTEMPTS_MAX - 1


async def test_a_refused_download_keeps_its_part(fake: FakeControlPlane, client: ControlPlane, tmp_path: Path) -> None:
    fake.put(DATA)
    file = await client.find("cam-1", "log.bin")
    (tmp_path / "log.part").write_bytes(DATA[:5000])
    await client.delete(file)
    with pytest.raises(ControlPlaneError) as caught:
        await client.download(file, tmp_path / "log", ignore)
    assert caught.value.status == 410
    assert (tmp_path / "log.part").read_bytes() == DATA[:5000]


async def test_a_target_that_cannot_be_written_is_named(
    fake: FakeControlPlane, client: ControlPlane, tmp_path: Path
) -> None:
    fake.put(DATA)
    with pytest.raises(TargetError, match=r"missing/log\.part cannot be written: No such file"):
        await client.download(await client.find("cam-1", "log.bin"), tmp_path / "missing" / "log", ignore)


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (200, b"<html>", NoAnswerError, "does not speak as uplinkd's control plane does"),
        (200, b"[]", NoAnswerError, "does not speak as"),
        (200, b"{}", NoAnswerError, "no text 'id'"),
        (502, b"<html>Bad Gateway", ControlPlaneError, "HTTP status 502"),
        (500, b'{"code": "x"}', ControlPlaneError, "HTTP status 500"),
        (404, b'{"code": 545, "name": "NOT_FOUND", "detail": "no such"}', ControlPlaneError, "NOT_FOUND: no such"),
    ],
)
async def test_answers_of_another_server_are_recognized(
    status: int, body: bytes, error: type[Exception], text: str, fake: FakeControlPlane, client: ControlPlane
) -> None:
    fake.answers.append(says(status, body))
    with pytest.raises(error, match=text):
        await client.find("cam-1", "log.bin")


async def test_an_answer_without_a_list_is_refused(fake: FakeControlPlane, client: ControlPlane) -> None:
    fake.answers.append(says(200, b'{"files": 3}'))
    with pytest.raises(NoAnswerError, match="no list 'files'"):
        [file async for file in client.files(None, (), None)]


async def test_an_unreachable_control_plane_is_named() -> None:
    async with ControlPlane("http://127.0.0.1:1", token="t") as client:
        with pytest.raises(NoAnswerError, match=r":1 did not answer GET /v1/devices/a/files/b: .*UPLINK_HTTP"):
            await client.find("a", "b")
