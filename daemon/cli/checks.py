"""The checks of `check-config`: the settings in force with their origin, and whether the daemon could start."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from daemon.adapters.entropy import Entropy
from daemon.adapters.files import FileSystem
from daemon.admin.unix_socket import PATH_BYTES_MAX
from daemon.identity.keys import SECRET_BYTES, KeysInvalid, ensure_secret_file, load_keys
from daemon.policies import descriptor_budget
from daemon.settings import ENVIRONMENT_DELIMITER, ENVIRONMENT_PREFIX, FlagValue, Settings, keys
from daemon.tcp.policies import tls_context

Value = str | int | float | bool | list[str] | None


class Check(StrEnum):
    """The checks."""

    DATA_DIRECTORY = "data directory"
    KEYS = "keys"
    TLS = "tls"
    ADMIN_SOCKET = "admin socket"
    DESCRIPTORS = "file descriptors"


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting in force, and where its value came from."""

    key: str
    value: Value
    origin: str


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `detail` says what was found and, if the check failed, what to do."""

    check: Check
    is_good: bool
    detail: str


def effective(
    settings: Settings, file: Path | None, environment: Mapping[str, str], flags: Mapping[str, FlagValue]
) -> tuple[Effective, ...]:
    """All settings, as loaded from these sources, in the order of the annotated example. Raises OSError."""
    tables = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8"))
    variables = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace(ENVIRONMENT_DELIMITER, "."): name
        for name in environment
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    values = settings.model_dump(mode="json")

    def origin(key: str) -> str:
        if key in flags:
            return "flag"
        if key in variables:
            return f"environment {variables[key]}"
        section, _, name = key.rpartition(".")
        table = tables.get(section, {}) if section else tables
        return f"file {file}" if name in table else "default"

    def value(key: str) -> Value:
        section, _, name = key.rpartition(".")
        chosen: Value = (values[section] if section else values)[name]
        return chosen

    return tuple(Effective(key, value(key), origin(key)) for key in keys())


def findings(settings: Settings, files: FileSystem, entropy: Entropy, descriptors_max: int) -> Iterator[Finding]:
    """Check everything a start depends on. The only side effect is a file in the data directory, made and removed.

    `descriptors_max` is the limit of this process, which stands for the daemon's.
    """
    yield _data_directory(settings, files, entropy)
    yield _keys(settings, entropy)
    yield _tls(settings)
    yield _admin_socket(settings)
    yield _descriptors(settings, descriptors_max)


def _data_directory(settings: Settings, files: FileSystem, entropy: Entropy) -> Finding:
    directory = settings.data_dir
    place = directory
    try:
        place = next(each for each in (directory, *directory.absolute().parents) if each.exists())
        probe = place / f".uplinkd-check-{entropy.bytes(8).hex()}"
        files.close(files.create(probe))
        files.remove(probe)
    except OSError as error:
        advice = f"cannot be written: {error.strerror}; check data_dir, its owner, and the user who runs this command"
        return Finding(Check.DATA_DIRECTORY, False, f"{place} {advice}")
    found = "can be written" if place == directory else f"will be made in {place}, which can be written"
    return Finding(Check.DATA_DIRECTORY, True, f"{directory} {found}")


def _keys(settings: Settings, entropy: Entropy) -> Finding:
    path, auth = settings.secret_path, settings.auth
    try:
        # The first start makes the secret, not this check.
        is_made = path.exists()
        secret = ensure_secret_file(path, entropy) if is_made else entropy.bytes(SECRET_BYTES)
        loaded = load_keys(secret, auth.public_keys, auth.jwks_file, auth.algorithms)
    except (KeysInvalid, OSError) as error:
        return Finding(Check.KEYS, False, str(error))
    algorithms = ", ".join(sorted({key.algorithm for key in loaded}))
    later = "" if is_made else f"; the secret {path} will be made at the first start"
    return Finding(Check.KEYS, True, f"{len(loaded)} for {algorithms}{later}")


def _tls(settings: Settings) -> Finding:
    files = f"{settings.listen.tls_certificate} and {settings.listen.tls_key}"
    try:
        context = tls_context(settings)
    except OSError as error:
        advice = "both must be PEM, belong together, and be readable without a password"
        return Finding(Check.TLS, False, f"{error}; {advice}")
    return Finding(Check.TLS, True, "off: plain TCP" if context is None else f"{files} load")


def _admin_socket(settings: Settings) -> Finding:
    path = settings.admin_socket_path
    length = len(bytes(path))
    if length > PATH_BYTES_MAX:
        detail = f"{path} has {length} bytes, the limit is {PATH_BYTES_MAX}: set a shorter admin_socket"
        return Finding(Check.ADMIN_SOCKET, False, detail)
    # The daemon makes the data directory; any other directory is up to the operator.
    if path.parent != settings.data_dir and not path.parent.is_dir():
        return Finding(Check.ADMIN_SOCKET, False, f"there is no directory {path.parent}: make it, or set admin_socket")
    return Finding(Check.ADMIN_SOCKET, True, str(path))


def _descriptors(settings: Settings, descriptors_max: int) -> Finding:
    # No failure: the daemon serves fewer then. Nor is this process's limit the unit's.
    budget = descriptor_budget(settings, descriptors_max)
    warning = "warning: this command may have " if budget.is_short else ""
    return Finding(Check.DESCRIPTORS, True, f"{warning}{budget}")
