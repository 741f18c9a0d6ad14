"""Log lines: what they contain, and what they never do."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import jwt
import pytest

from daemon.telemetry.logs import DEPTH_MAX, ITEMS_MAX, MASK, TEXT_CHARS_MAX, Format, Level, Logs, configure

NOW_MS = 1_700_000_000_123
TOKEN = jwt.encode({"sub": "device-1", "scope": "upload"}, "k" * 32, "HS256")
SECRET = "q4Jx0vWm3bZ8sTnY1cRkL6hDgPfA9eUoI2w5MtV7yXE"  # 32 bytes as base64url

Start = Callable[..., tuple[Logs, io.StringIO]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Logs] = []
    root, own = logging.getLogger(), logging.getLogger("uplinkd")
    levels = root.level, own.level

    def start(level: Level = "info", form: Format = "json") -> tuple[Logs, io.StringIO]:
        stream = io.StringIO()
        started.append(configure(level, form, stream, lambda: NOW_MS))
        return started[-1], stream

    yield start
    for logs in started:
        logs.close()
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def only(stream: io.StringIO) -> dict[str, object]:
    """The one JSON line that was written."""
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert isinstance(record, dict)
    return record


def fail(text: str) -> None:
    raise ValueError(text)


class TestLines:
    @pytest.mark.parametrize("form", ["json", "console"])
    def test_a_line_of_its_own_looks_like_the_others(self, start: Start, form: Format) -> None:
        logs, stream = start(form=form)
        logs.logger().warning("lines dropped", count=5)
        assert logs.line("lines dropped", count=5) == stream.getvalue()

    def test_a_line_carries_time_level_event_and_values(self, start: Start) -> None:
        logs, stream = start()
        logs.logger().info("upload complete", size=5, ok=True, ratio=0.5, tag=None)
        assert only(stream) == {
            "timestamp": "2023-11-14T22:13:20.123Z",
            "level": "info",
            "logger": "uplinkd",
            "event": "upload complete",
            "size": 5,
            "ok": True,
            "ratio": 0.5,
            "tag": None,
        }

    def test_bound_values_are_on_every_line(self, start: Start) -> None:
        logs, stream = start()
        logger = logs.logger(connection="c1").bind(device="d1")
        logger.info("one")
        logger.bind(upload="00000000000000ff").warning("two")
        one, two = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert (one["connection"], one["device"], one.get("upload")) == ("c1", "d1", None)
        assert (two["connection"], two["device"], two["upload"]) == ("c1", "d1", "00000000000000ff")
        assert two["level"] == "warning"

    def test_bound_values_cannot_replace_time_or_level(self, start: Start) -> None:
        logs, stream = start()
        logs.logger(timestamp="1970", level="debug", logger="x").error("e")
        line = only(stream)
        assert (line["timestamp"], line["level"], line["logger"]) == ("2023-11-14T22:13:20.123Z", "error", "uplinkd")

    def test_values_of_any_type_are_written(self, start: Start) -> None:
        class Colour(StrEnum):
            RED = "red"

        logs, stream = start()
        logs.logger().info("e", path=Path("/x"), raw=b"a\xff", names=("a", 1), inner={"b": {2}}, colour=Colour.RED)
        line = only(stream)
        assert (line["path"], line["raw"], line["names"]) == ("/x", r"a\xff", ["a", 1])
        assert (line["inner"], line["colour"]) == ({"b": [2]}, "red")

    def test_the_console_format_is_for_people(self, start: Start) -> None:
        logs, stream = start(form="console")
        logs.logger(device="d1").info("connected", port=7710)
        (line,) = stream.getvalue().splitlines()
        assert "info" in line
        assert "connected" in line
        assert "device='d1'" in line
        assert "port=7710" in line
        assert "\x1b" not in line

    def test_libraries_are_logged_from_warning_up(self, start: Start) -> None:
        _, stream = start("debug")
        logging.getLogger("aiohttp.server").info("small talk")
        logging.getLogger("aiohttp.server").warning("it is %s", "late", extra={"token": "abc"})
        line = only(stream)
        assert (line["logger"], line["level"], line["event"]) == ("aiohttp.server", "warning", "it is late")
        assert line["token"] == MASK

    def test_closed_logs_write_nothing(self, start: Start) -> None:
        logs, stream = start()
        logs.close()
        logs.logger().error("e")
        assert stream.getvalue() == ""


class TestLevel:
    @pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
    def test_lines_below_the_level_are_dropped(self, start: Start, level: Level, count: int) -> None:
        logs, stream = start(level)
        logger = logs.logger()
        logger.debug("d")
        logger.info("i")
        logger.warning("w")
        logger.error("e")
        assert len(stream.getvalue().splitlines()) == count

    def test_it_changes_at_run_time_for_loggers_that_exist(self, start: Start) -> None:
        logs, stream = start("error")
        logger = logs.logger(device="d")
        logger.info("before")
        logs.set_level("debug")
        logger.debug("after")
        assert only(stream)["event"] == "after"


class TestSecrets:
    @pytest.mark.parametrize(
        "key",
        [
            "token",
            "access_token",
            "Authorization",
            "secret",
            "device_secret",
            "password",
            "credential",
            "key",
            "derived_key",
            "private_pem",
            "proof",
            "cookie",
            "api_key",
        ],
    )
    @pytest.mark.parametrize("value", ["hunter2", b"hunter2", ["hunter2"], {"inner": "hunter2"}])
    @pytest.mark.parametrize("form", ["json", "console"])
    def test_values_under_secret_names_are_masked(self, start: Start, key: str, value: object, form: Format) -> None:
        logs, stream = start(form=form)
        logs.logger(**{key: value}).info("e", nested={key: value})
        assert "hunter2" not in stream.getvalue()
        assert stream.getvalue().count(MASK) == 2

    def test_numbers_about_tokens_are_not_masked(self, start: Start) -> None:
        logs, stream = start()
        logs.logger().info("e", tokens_cached=5)
        assert only(stream)["tokens_cached"] == 5

    @pytest.mark.parametrize(
        "text",
        [
            TOKEN,
            f"header {TOKEN} refused",
            f"https://host/v1/files?access={TOKEN}&x=1",
            TOKEN.rpartition(".")[0],
            f"x{TOKEN}",
            f"Bearer {SECRET}",
            "Basic ZGV2aWNlOmh1bnRlcjI=",
            f"secret is {SECRET}.",
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA",
        ],
    )
    def test_text_that_looks_like_a_secret_is_masked_anywhere(self, start: Start, text: str) -> None:
        logs, stream = start()
        logger = logs.logger()
        logger.info(text)
        logger.info("e", agent=text, raw=text.encode(), items=[text], deep={"a": {"b": text}})
        try:
            fail(text)
        except ValueError:
            logger.exception("failed")
        written = stream.getvalue()
        for part in (*TOKEN.split("."), SECRET, "ZGV2aWNlOmh1bnRlcjI", "MC4CAQAwBQYDK2VwBCIEIA"):
            assert part not in written
        assert written.count(MASK) >= 6

    def test_a_token_at_the_length_limit_is_masked_whole(self, start: Start) -> None:
        logs, stream = start()
        logs.logger().info("e", agent="x" * (TEXT_CHARS_MAX - 10) + " " + TOKEN)
        assert "eyJ" not in stream.getvalue()

    def test_digests_and_ids_are_not_masked(self, start: Start) -> None:
        logs, stream = start()
        logs.logger().info("e", sha256="ab" * 32, upload="0123456789abcdef", name="2026/log-1.bin")
        line = only(stream)
        assert (line["sha256"], line["upload"], line["name"]) == ("ab" * 32, "0123456789abcdef", "2026/log-1.bin")


class TestForgery:
    FORGED = '\r\n{"event": "forged"}\x1b[2J\x00\x85\u2028\u202e\udc80'

    @pytest.mark.parametrize("form", ["json", "console"])
    def test_text_from_a_device_cannot_start_a_line_or_control_a_terminal(self, start: Start, form: Format) -> None:
        logs, stream = start(form=form)
        logs.logger().info(
            f"hello {self.FORGED}", agent=self.FORGED, raw=b"\n\x1b", items=[self.FORGED], inner={self.FORGED: "x"}
        )
        written = stream.getvalue()
        assert len(written.splitlines()) == 1
        assert not set(written[:-1]) & {chr(code) for code in (*range(32), *range(0x7F, 0xA0), 0x2028, 0x202E)}

    def test_escapes_are_readable(self, start: Start) -> None:
        logs, stream = start()
        logs.logger().info("e", agent="a\n\x1bé")
        assert only(stream)["agent"] == r"a\n\x1bé"

    @pytest.mark.parametrize("form", ["json", "console"])
    def test_a_traceback_is_readable_but_cannot_forge_a_line(self, start: Start, form: Format) -> None:
        logs, stream = start(form=form)
        try:
            fail("bad\n2023 [error] forged\x1b[2J")
        except ValueError:
            logs.logger().exception("failed")
        written = stream.getvalue()
        assert "\x1b" not in written
        lines = written.splitlines() if form == "console" else str(only(stream)["exception"]).splitlines()
        traceback = lines[1:] if form == "console" else lines
        assert any("Traceback" in line for line in traceback)
        assert any("forged" in line for line in traceback)
        assert all(line.startswith("  | ") for line in traceback)

    def test_a_value_on_the_console_cannot_look_like_other_fields(self, start: Start) -> None:
        logs, stream = start(form="console")
        logs.logger().info("e", agent="x device=other")
        assert "agent='x device=other'" in stream.getvalue()


class TestBounds:
    def test_long_texts_are_cut(self, start: Start) -> None:
        logs, stream = start()
        logs.logger().info("e", agent="é" * 10_000, raw=b"a" * 10_000)
        line = only(stream)
        assert line["agent"] == "é" * TEXT_CHARS_MAX + "…"
        assert line["raw"] == "a" * TEXT_CHARS_MAX + "…"

    def test_long_lists_and_tables_are_cut(self, start: Start) -> None:
        logs, stream = start()
        logs.logger().info("e", ranges=list(range(1000)), table={str(index): index for index in range(1000)})
        line = only(stream)
        assert line["ranges"] == list(range(ITEMS_MAX))
        assert line["table"] == {str(index): index for index in range(ITEMS_MAX)}

    def test_deep_values_become_text(self, start: Start) -> None:
        deep: object = "x"
        for _ in range(DEPTH_MAX + 5):
            deep = [deep]
        logs, stream = start()
        logs.logger().info("e", deep=deep)
        value = only(stream)["deep"]
        for _ in range(DEPTH_MAX):
            assert isinstance(value, list)
            (value,) = value
        assert isinstance(value, str)
