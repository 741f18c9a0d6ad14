"""Changes to a running daemon: settings by SIGHUP, access rights by commands."""

import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol import frames
from protocol.errors import ErrorCode
from protocol.handshake import read_secret
from tests.support.raw_device import Wire, open_request, token_hello
from tests.support.scene import Bystander, Scene, scene


class Operator:
    """Edits the settings file and reloads it."""

    def __init__(self, live: Scene, file: Path) -> None:
        self.live = live
        self.file = file

    async def reload(self, text: str) -> str:
        """Write `text` to the file and reload. Returns the outcome that the daemon logs."""
        self.file.write_text(text)
        before = len(self.live.daemon.log)
        self.live.daemon.process.send_signal(signal.SIGHUP)
        line = await self.live.until_logged(lambda line: '"settings reloaded"' in line, since=before)
        return str(json.loads(line)["outcome"])


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    file = tmp_path / "uplinkd.toml"
    file.write_text("")
    async with scene(tmp_path / "data", {"CONFIG": str(file)}) as live:
        yield Operator(live, file)


async def welcomed(live: Scene, token: str) -> frames.Welcome:
    """The WELCOME of a new connection."""
    async with await Wire.connect(live.address) as wire:
        wire.say(token_hello(token))
        return await wire.hear(frames.Welcome)


async def refused(live: Scene, token: str) -> str:
    """The name of the error that refuses a new connection."""
    async with await Wire.connect(live.address) as wire:
        wire.say(token_hello(token))
        code = (await wire.hear(frames.Refused)).code
        return next(each.name for each in ErrorCode if each == code)


async def test_limits_and_the_log_level_take_effect_without_disturbing_uploads(operator: Operator) -> None:
    live = operator.live
    async with Bystander.at(live) as bystander:
        await bystander.go_on()
        outcome = await operator.reload('[limits]\nstreams_max = 2\nkeepalive_s = 9\n[log]\nlevel = "debug"\n')
        assert outcome == "changed: limits.keepalive_s, limits.streams_max, log.level"
        welcome = await welcomed(live, live.token("cam"))
        assert (welcome.streams_max, welcome.keepalive_s) == (2, 9)
        await live.until_logged(lambda line: '"device let in"' in line)
        async with await live.admitted("cam") as wire:
            for stream in (1, 2):
                await wire.open(stream, open_request(f"{stream}.bin"))
            wire.say(open_request("3.bin"), 3)
            assert (await wire.hear(frames.Error, 3)).code == ErrorCode.TOO_MANY_STREAMS
        await bystander.go_on()


async def test_a_quota_takes_effect_for_new_uploads(operator: Operator) -> None:
    live = operator.live
    assert await operator.reload("[storage]\nquota_bytes_per_device = 1000\nsize_max_bytes = 500\n") == (
        "changed: storage.quota_bytes_per_device, storage.size_max_bytes"
    )
    async with await live.admitted("cam") as wire:
        wire.say(open_request("large.bin", 501), 1)
        assert (await wire.hear(frames.Error, 1)).code == ErrorCode.FILE_TOO_LARGE
        for stream in (2, 3):
            await wire.open(stream, open_request(f"{stream}.bin", 500))
        wire.say(open_request("more.bin", 1), 4)
        assert (await wire.hear(frames.Error, 4)).code == ErrorCode.QUOTA_EXCEEDED


async def test_keys_take_effect(operator: Operator, tmp_path: Path) -> None:
    live, pem = operator.live, tmp_path / "issuer.pem"
    key = Ed25519PrivateKey.generate()
    pem.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    claims = {"iss": "uplinkd", "aud": "uplinkd", "sub": "cam", "exp": int(time.time()) + 600}
    token = jwt.encode(claims, key, "EdDSA")
    assert await refused(live, token) == "UNAUTHENTICATED"
    assert await operator.reload(f'[auth]\npublic_keys = ["{pem}"]\n') == "changed: auth.public_keys"
    await welcomed(live, token)
    assert await operator.reload("") == "changed: auth.public_keys"
    assert await refused(live, token) == "UNAUTHENTICATED"
    assert (await live.http.get("/v1/files", token=token)).status == 401


async def test_a_key_that_is_removed_takes_its_connections_with_it(operator: Operator, tmp_path: Path) -> None:
    live, pem = operator.live, tmp_path / "issuer.pem"
    key = Ed25519PrivateKey.generate()
    pem.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    await operator.reload(f'[auth]\npublic_keys = ["{pem}"]\n')
    claims = {"iss": "uplinkd", "aud": "uplinkd", "sub": "cam", "exp": int(time.time()) + 600}
    async with Bystander.at(live) as bystander:
        async with await Wire.admitted(live.address, jwt.encode(claims, key, "EdDSA")) as wire:
            await wire.open(1, open_request("cut.bin", 20))
            await operator.reload(f'[auth]\npublic_keys = ["{pem}"]\n[limits]\nstreams_max = 9\n')
            await wire.upload(1, 0, bytes(10))
            await operator.reload("")
            assert (await wire.hear(frames.Error)).code == ErrorCode.UNAUTHENTICATED
            await wire.ended()
        await bystander.go_on()


async def test_a_new_secret_cuts_what_the_old_one_opened(operator: Operator) -> None:
    live = operator.live
    command = live.daemon.command
    old = await command("device", "add", "cam", "--quiet")
    answer = await live.http.post("/v1/token", {"device": "cam", "secret": old.strip()})
    bought = str(answer.json()["access_token"])
    async with (
        Bystander.at(live) as bystander,
        await Wire.admitted(live.address, bought) as by_token,
        await live.admitted("cam") as by_issuer,
        await Wire.connect(live.address) as by_secret,
    ):
        assert isinstance((await by_secret.prove("cam", read_secret(old))).frame, frames.Welcome)
        new = read_secret(await command("device", "add", "cam", "--replace", "--quiet"))
        for wire in (by_token, by_secret):
            assert (await wire.hear(frames.Error)).code == ErrorCode.UNAUTHENTICATED
            await wire.ended()
        assert await refused(live, bought) == "UNAUTHENTICATED"
        assert (await live.http.get("/v1/files", token=bought)).status == 401
        # Tokens of other issuers do not come from the secret.
        await by_issuer.open(1, open_request("other.bin", 20))
        async with await Wire.connect(live.address) as again:
            assert isinstance((await again.prove("cam", new)).frame, frames.Welcome)
        await bystander.go_on()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[limits", "is not valid TOML"),
        ("[limits]\nstreams_max = 0\n", "limits.streams_max"),
        ("[limit]\nstreams_max = 2\n", "did you mean limits.streams_max?"),
        ('[auth]\njwks_file = "/missing.json"\n[limits]\nstreams_max = 2\n', "/missing.json"),
    ],
    ids=["syntax", "value", "key", "file"],
)
async def test_an_invalid_file_changes_nothing_and_the_reason_is_logged(
    operator: Operator, text: str, reason: str
) -> None:
    live = operator.live
    before = await welcomed(live, live.token("cam"))
    outcome = await operator.reload(text)
    assert outcome.startswith("nothing changed: ")
    assert reason in outcome
    assert (await welcomed(live, live.token("cam"))).streams_max == before.streams_max
    assert await operator.reload("[limits]\nstreams_max = 2\n") == "changed: limits.streams_max"


async def test_settings_that_need_a_restart_are_named_and_not_applied(operator: Operator) -> None:
    live = operator.live
    text = '[commit]\ndurability = "write"\n[listen]\nbacklog = 5\n[limits]\nstreams_max = 2\n'
    assert await operator.reload(text) == (
        "changed: limits.streams_max; after a restart: listen.backlog, commit.durability"
    )
    welcome = await welcomed(live, live.token("cam"))
    assert (welcome.streams_max, welcome.durability) == (2, 1)


async def test_a_disabled_device_is_cut_and_may_return_once_it_is_enabled(operator: Operator) -> None:
    live = operator.live
    command = live.daemon.command
    secret = read_secret(await command("device", "add", "cam", "--quiet"))
    async with Bystander.at(live) as bystander, await Wire.connect(live.address) as wire:
        assert isinstance((await wire.prove("cam", secret)).frame, frames.Welcome)
        await wire.open(1, open_request("cut.bin", 20))
        await wire.upload(1, 0, bytes(10))
        await command("device", "disable", "cam")
        assert (await wire.hear(frames.Error)).code == ErrorCode.DEVICE_DISABLED
        await wire.ended()
        async with await Wire.connect(live.address) as again:
            reply = await again.prove("cam", secret)
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.DEVICE_DISABLED
        await bystander.go_on()
        await command("device", "enable", "cam")
        async with await Wire.connect(live.address) as again:
            assert isinstance((await again.prove("cam", secret)).frame, frames.Welcome)
            assert (await again.open(1, open_request("cut.bin", 20))).next_expected_byte == 10
