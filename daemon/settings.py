"""The settings, read from a file, the environment and flags, and what is wrong with them in an operator's terms."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from daemon.sections import Auth, CleanupSettings, Commit, Drain, Http, Limits, Listen, Log, StorageSettings

ENVIRONMENT_PREFIX = "UPLINKD_"
ENVIRONMENT_DELIMITER = "__"

FILE_VARIABLE = "UPLINKD_CONFIG"
"""Names the settings file to the command line. It is not a setting, so `load` ignores it."""

FlagValue = str | int | float | bool


class Settings(BaseSettings):
    """All settings. `load` makes them; the constructor takes its arguments and the defaults, nothing else."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    data_dir: Path = Path("uplinkd-data")
    admin_socket: Path | None = None
    listen: Listen = Listen()
    limits: Limits = Limits()
    commit: Commit = Commit()
    storage: StorageSettings = StorageSettings()
    cleanup: CleanupSettings = CleanupSettings()
    auth: Auth = Auth()
    http: Http = Http()
    log: Log = Log()
    drain: Drain = Drain()

    @property
    def admin_socket_path(self) -> Path:
        """`admin_socket`, by default in the data directory."""
        return self.admin_socket or self.data_dir / "admin.sock"

    @property
    def secret_path(self) -> Path:
        """`auth.secret_file`, by default in the data directory."""
        return self.auth.secret_file or self.data_dir / "secret"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only arguments: `load` gets the environment passed in, so nothing reads the process's own behind its back."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """One thing wrong: the dotted key, where its value came from, and what is wrong and expected."""

    key: str
    origin: str
    detail: str

    def __str__(self) -> str:
        return f"{self.key} ({self.origin}): {self.detail}"


class SettingsInvalid(Exception):
    """The settings cannot be used. `problems` lists everything wrong; the text can be shown to an operator."""

    def __init__(self, problems: tuple[SettingProblem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(["settings are not valid:", *(f"  {problem}" for problem in problems)]))


class Changes(NamedTuple):
    """Dotted keys that differ: those a running daemon takes over, and those that wait for a restart."""

    applied: tuple[str, ...]
    restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    origin: str


def keys() -> tuple[str, ...]:
    """Every dotted key, in the order of the example."""
    return tuple(_flat(Settings()))


def reloadable() -> frozenset[str]:
    """Dotted keys that take effect on SIGHUP: keys and tokens, certificates, limits, log level."""
    whole = ("limits.", "storage.", "auth.")
    single = {"listen.tls_certificate", "listen.tls_key", "log.level"}
    # Connections hold leases of the pool's memory, each as large as a chunk, so these two sizes cannot change.
    fixed = {"limits.receive_pool_bytes", "limits.chunk_bytes_max"}
    return frozenset(key for key in keys() if key in single or (key.startswith(whole) and key not in fixed))


def changes(old: Settings, new: Settings) -> Changes:
    """What differs between two settings: what a reload can apply, and what it cannot."""
    before, after = _flat(old), _flat(new)
    differing = [key for key in before if before[key] != after[key]]
    may = reloadable()
    return Changes(tuple(key for key in differing if key in may), tuple(key for key in differing if key not in may))


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, FlagValue]) -> Settings:
    """Read settings: defaults, then `file` (TOML), then `environment` (`UPLINKD_LIMITS__STREAMS_MAX`), then
    `flags` (dotted keys); later sources override earlier ones. Outside the file, commas separate lists.

    Raises SettingsInvalid, which lists every bad or unknown key with its origin and what was expected.
    """
    given = _file(file) | _environment(environment)
    given |= {key: _Given(value, f"flag {key}") for key, value in flags.items()}
    known = keys()
    problems = [_unknown(key, item, known) for key, item in given.items() if key not in known]
    try:
        settings = Settings.model_validate(_nested({key: given[key].value for key in known if key in given}))
    except ValidationError as error:
        # Not chained: the report says everything that pydantic's says, in the operator's terms.
        raise SettingsInvalid((*problems, *_translated(error, given))) from None
    if problems:
        raise SettingsInvalid(tuple(problems))
    return settings


def _file(file: Path | None) -> dict[str, _Given]:
    if file is None:
        return {}
    origin = f"file {file}"
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        unreadable = SettingProblem("*", origin, f"cannot be read: {error.strerror}; check its path and mode")
        raise SettingsInvalid((unreadable,)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid((SettingProblem("*", origin, f"is not valid TOML: {error}"),)) from error
    return {key: _Given(value, origin) for key, value in _flattened(tables).items()}


def _environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and name != FILE_VARIABLE:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace(ENVIRONMENT_DELIMITER, ".")
            given[key] = _Given(value, f"environment {name}")
    return given


def _flattened(tables: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat


def _nested(flat: Mapping[str, object]) -> dict[str, object]:
    top: dict[str, object] = {}
    sections: dict[str, dict[str, object]] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        if section:
            sections.setdefault(section, {})[name] = value
        else:
            top[name] = value
    return {**top, **sections}


def _flat(settings: Settings) -> dict[str, object]:
    return _flattened(settings.model_dump())


def _unknown(key: str, item: _Given, known: tuple[str, ...]) -> SettingProblem:
    within = [name for name in known if name.startswith(f"{key}.")]
    if within:
        return SettingProblem(key, item.origin, f"is a section; set its keys: {', '.join(within)}")
    close = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean {close[0]}?" if close else "remove it, or see the annotated example for the keys there are"
    return SettingProblem(key, item.origin, f"unknown key; {advice}")


def _translated(error: ValidationError, given: Mapping[str, _Given]) -> list[SettingProblem]:
    problems = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"] if isinstance(part, str))
        origin = given[key].origin if key in given else "default"
        message = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
        problems.append(SettingProblem(key, origin, f"{item['input']!r}: {message}"))
    return problems
