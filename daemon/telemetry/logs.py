"""Structured logs: one line per event, as JSON or readable text, with the bound values and without secrets.

Many values come from devices. They are sanitised here, in one place, so that callers need not care.
"""

import itertools
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]

MASK = "[secret]"

TEXT_CHARS_MAX = 2048
"""Longer texts are truncated. Names and agents have at most 1 KiB, and log collectors limit the length of a line."""

ITEMS_MAX = 64
DEPTH_MAX = 4
"""Bounds for nested values. The daemon's own values stay far below."""

_ROOT = "uplinkd"

_SECRET_KEY = re.compile(
    r"token|secret|password|passwd|credential|authorization|cookie|private|jwt|bearer|proof|nonce|signature|api_?key"
    r"|^key$|_key$",
    re.IGNORECASE,
)

_LOOKS_SECRET = re.compile(
    # A JWT's header begins with base64url of '{"'. Matching whole words keeps the search linear.
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*eyJ)[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*"
    r"|(?i:\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    # 32 bytes as base64url without padding: the secret of a device, or of the daemon.
    r"|(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*[A-Z])(?=[A-Za-z0-9_-]*[a-z])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"
)

# Control characters (C0, DEL, C1), line and paragraph separators, bidirectional marks, and lone surrogates: everything
# that could end a line, control a terminal, or make one line look like another.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Logs:
    """The process's logs: makes loggers and changes the level at run time. Made once, by `configure`."""

    __slots__ = ("_handler", "_own")

    def __init__(self, handler: logging.Handler, own: logging.Logger) -> None:
        self._handler = handler
        self._own = own

    def logger(self, **bound: object) -> structlog.stdlib.BoundLogger:
        """A logger that adds `bound` to every line, such as the ids of the connection, device and upload."""
        logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            self._own,
            processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=True,
        )
        return logger.bind(**bound)

    def set_level(self, level: Level) -> None:
        """Drop the daemon's lines below `level` from now on. Libraries log from `warning` up, whatever the level."""
        number = logging.getLevelNamesMapping()[level.upper()]
        self._own.setLevel(number)
        logging.getLogger().setLevel(max(number, logging.WARNING))

    def line(self, event: str, **values: object) -> str:
        """A warning as it would be written, for lines that do not come from a logger."""
        record = logging.LogRecord(_ROOT, logging.WARNING, "", 0, {**values, "event": event}, (), None)
        record._logger, record._name = self._own, "warning"
        return f"{self._handler.format(record)}\n"

    def close(self) -> None:
        """Flush, and remove the handler from the root logger."""
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


def configure(level: Level, form: Format, stream: Stream, wall_ms: Callable[[], int]) -> Logs:
    """Write the daemon's lines, and those of libraries (through the root logger), to `stream`.

    `wall_ms` returns the Unix time in milliseconds for each line's timestamp.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                _stamp(wall_ms),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                sanitise,
                _renderer(form, stream),
            ],
        )
    )
    logging.getLogger().addHandler(handler)
    logs = Logs(handler, logging.getLogger(_ROOT))
    logs.set_level(level)
    return logs


def sanitise(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor that masks secrets, escapes what could forge a line, and truncates long values."""
    traceback = event.pop("exception", None)
    clean: EventDict = {_text(name): _value(name, value, DEPTH_MAX) for name, value in event.items()}
    if traceback is not None:
        # A traceback keeps its lines, each with a prefix, so that none looks like a separate event.
        lines = _LOOKS_SECRET.sub(MASK, str(traceback)).split("\n")
        clean["exception"] = "\n".join(f"  | {_text(line)}" for line in lines)
    return clean


def _stamp(wall_ms: Callable[[], int]) -> Processor:
    def stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        time = datetime.fromtimestamp(wall_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        head = {"timestamp": time.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name}
        # These go last, so that no bound value can overwrite them.
        return {**head, **event, **head}

    return stamp


def _renderer(form: Format, stream: Stream) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        # Quotes, so that a value with spaces and "=" does not look like several fields.
        repr_native_str=True,
        exception_formatter=structlog.dev.plain_traceback,
    )


def _value(name: str, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_KEY.search(name):
        return MASK
    if isinstance(value, bytes | bytearray | memoryview):
        return _text(bytes(value[: TEXT_CHARS_MAX + 1]).decode("utf-8", "backslashreplace"))
    if isinstance(value, Mapping) and depth:
        items = itertools.islice(value.items(), ITEMS_MAX)
        return {_text(str(key)): _value(str(key), item, depth - 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return [_value(name, item, depth - 1) for item in itertools.islice(value, ITEMS_MAX)]
    return _text(str(value))


def _text(text: str) -> str:
    # Mask before truncating, because half a token would not be recognised.
    text = _LOOKS_SECRET.sub(MASK, text)
    return _escaped(text if len(text) <= TEXT_CHARS_MAX else text[:TEXT_CHARS_MAX] + "…")


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
