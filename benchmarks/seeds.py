"""Data directories with many files, made once per catalog schema and then borrowed to one benchmark at a time.

The daemon itself writes one complete file and one rejected file. SQLite copies their rows, whatever the columns, and
each copy gets its bytes where the daemon looks for them.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import native, process, wire
from benchmarks.dialogue import Dialogue
from benchmarks.uplinkd import serving
from protocol import codec, frames

CACHE = native.BUILT.parent / "seeds"

CONTENT = bytes(4096)
"""Zeros, so that a sparse file of this size has the right content without using a block."""

STORED_S = 1_700_000_000
"""When the bytes were written, in Unix time: so long ago that cleanup checks whether they are orphans."""

PAGE_FILES = 100
"""Files per device, per job prefix, and rejected in the smallest catalog, so that every list fills one page."""

ROOTS = ("even", "odd")
"""Prefixes of names, each used by half of the files."""

_MULTIPLY = """
WITH RECURSIVE numbers (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < :count)
INSERT INTO uploads SELECT {columns} FROM numbers JOIN templates ON templates.name = iif(number % 10, 'c', 'r')
"""
"""Every tenth file is rejected."""

_CREATED = "(SELECT min(created_ms) FROM templates) - :count + number"

_OWN_COLUMNS = {
    "id": "abs(random())",
    "device": "'device-' || (number % (:count / :page))",
    "name": "iif(number % 2, 'odd', 'even') || '/job-' || (number % (:count / :page)) || '/' || number",
    "created_ms": _CREATED,
    "updated_ms": _CREATED,
    "completed_ms": f"iif(completed_ms, {_CREATED}, NULL)",
}
"""Columns that differ from file to file. Ids are random, as the daemon's are; created_ms orders the lists."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A data directory that no daemon uses yet. `middle` is the list position (created_ms, id) of its middle file."""

    directory: Path
    files: int
    middle: tuple[int, int]


@contextlib.contextmanager
def borrowed(directory: Path, template: Path, files: int) -> Iterator[Seed]:
    """Provide a data directory of `files` files (a multiple of 200) at `directory`/data during the block.

    The files are moved there from the cache and back, because making a million files takes half a minute.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{files}.lock").open("w") as lock:
        # While files are lent the cache lacks them, which another run would take for the remains of a killed run.
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _borrowed(directory, _kept(template, files), files) as seed:
            yield seed


@contextlib.contextmanager
def _borrowed(directory: Path, kept: Path, files: int) -> Iterator[Seed]:
    with contextlib.closing(sqlite3.connect(kept / "catalog.sqlite")) as catalog:
        ids = {upload_id for (upload_id,) in catalog.execute("SELECT id FROM uploads")}
        middle = catalog.execute(
            "SELECT created_ms, id FROM uploads ORDER BY created_ms DESC, id DESC LIMIT 1 OFFSET ?", (files // 2,)
        ).fetchone()
    data_dir = directory / "data"
    data_dir.mkdir(parents=True)
    shutil.copyfile(kept / "catalog.sqlite", data_dir / "catalog.sqlite")
    (kept / "files").rename(data_dir / "files")
    try:
        yield Seed(directory, files, middle)
    finally:
        _give_back(data_dir / "files", kept / "files", ids)


def make_template(parent: Path) -> Path:
    """A catalog below `parent`, written by the daemon, with a complete file "c" and a rejected file "r"."""
    directory = parent / "template"
    directory.mkdir()
    with serving(directory) as daemon, Dialogue(daemon, "device") as device:
        device.store("c", CONTENT, 1)
        device.ask(wire.finish(len(CONTENT), 1), frames.Finished)
        device.store("r", CONTENT, 2)
        wrong = frames.Finish(len(CONTENT), crc32c=0)
        device.ask(codec.encode(wrong, 2), frames.Error)
    catalog = directory / "data" / "catalog.sqlite"
    with contextlib.closing(sqlite3.connect(catalog)) as connection:
        for (upload_id,) in connection.execute("SELECT id FROM uploads"):
            if not _place(directory / "data" / "files", upload_id).exists():
                raise process.Failed(
                    f"upload {upload_id:016x} is not where seeds.py puts files: adapt _place to storage"
                )
    return catalog


def _kept(template: Path, files: int) -> Path:
    """The cached catalog and files for this schema. Makes them if there are none."""
    with contextlib.closing(sqlite3.connect(template)) as catalog:
        schema = "".join(sql for (sql,) in catalog.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    digest = hashlib.sha256(schema.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    kept = CACHE / f"{digest}-{files}"
    if not (kept / "files").exists():
        fresh = CACHE / f"{kept.name}.new"
        # Remove seeds of older schemas, and what a killed run left.
        for left in (*CACHE.glob(f"*-{files}"), *CACHE.glob(f"*-{files}.new")):
            shutil.rmtree(left)
        (fresh / "files").mkdir(parents=True)
        shutil.copyfile(template, fresh / "catalog.sqlite")
        _store(fresh / "files", _multiply(fresh / "catalog.sqlite", files))
        fresh.rename(kept)
    return kept


def _multiply(path: Path, files: int) -> list[int]:
    """Turn the template into a catalog of `files` files. Returns their ids."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as catalog:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1000000"):
            catalog.execute(f"PRAGMA {pragma}")
        indexes = catalog.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'uploads' AND sql IS NOT NULL"
        ).fetchall()
        names = [row[1] for row in catalog.execute("PRAGMA table_info(uploads)")]
        columns = ", ".join(_OWN_COLUMNS.get(name, f"templates.{name}") for name in names)
        catalog.execute("BEGIN")
        catalog.execute("CREATE TEMP TABLE templates AS SELECT * FROM uploads")
        catalog.execute("DELETE FROM uploads")
        # Dropping the indexes and building them at the end takes a tenth of the time.
        for name, _ in indexes:
            catalog.execute(f"DROP INDEX {name}")
        catalog.execute(_MULTIPLY.format(columns=columns), {"count": files, "page": PAGE_FILES})
        for _, sql in indexes:
            catalog.execute(sql)
        catalog.execute("COMMIT")
        return [upload_id for (upload_id,) in catalog.execute("SELECT id FROM uploads ORDER BY id & 255")]


def _place(files: Path, upload_id: int) -> Path:
    return files / f"{upload_id % 256:02x}" / f"{upload_id:016x}"


def _store(files: Path, ids: list[int]) -> None:
    """Write a file for each id, directory by directory, which is three times as fast as a random order."""
    for upload_id in ids:
        path = _place(files, upload_id)
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        os.ftruncate(fd, len(CONTENT))
        os.utime(fd, (STORED_S, STORED_S))
        os.close(fd)


def _give_back(used: Path, files: Path, ids: set[int]) -> None:
    for shard in used.iterdir():
        for name in os.listdir(shard):  # noqa: PTH208 - a million names, and few become paths
            if int(name, 16) not in ids:
                (shard / name).unlink()
    used.rename(files)
