"""The commands of the command line."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath

from device.cli.control_plane import ControlPlane, RemoteFile
from device.cli.exit_codes import ExitCode, exit_code, message
from device.cli.settings import ConnectionSettings, UsageError
from device.cli.terminal import Terminal
from device.client import Uplink
from device.exceptions import UplinkError
from device.report import FileMetadata, Sent
from protocol.constants import NEVER_S, SIZE_UNKNOWN, TAG_BYTES_MAX, UploadState


@dataclass(frozen=True, slots=True)
class _Item:
    """One file to send; `position` is the line of its progress bar."""

    path: Path
    name: str
    position: int
    tag: bytes | None
    replace: bool


async def send(options: argparse.Namespace, settings: ConnectionSettings, terminal: Terminal) -> ExitCode:
    """Send all files at once over one connection; the exit code is the first failure's."""
    names = [options.name] if options.name is not None else [path.name for path in options.files]
    if len(names) != len(options.files):
        raise UsageError("--name is for one file; without it each file is sent under its own")
    if len(set(names)) < len(names):
        raise UsageError("two of the files have the same name: send them one by one, with --name")
    tag = _tag(options.tag)
    items = [
        _Item(path, name, position, tag, options.replace)
        for position, (path, name) in enumerate(zip(options.files, names, strict=True))
    ]
    async with _uplink(options, settings) as uplink:
        codes = await asyncio.gather(*(_send_one(uplink, item, terminal) for item in items))
    return next(filter(None, codes), ExitCode.OK)


async def _send_one(uplink: Uplink, item: _Item, terminal: Terminal) -> ExitCode:
    try:
        with item.path.open("rb") as source:
            sent = await _send_file(uplink, item, source, terminal)
    except OSError as error:
        terminal.failure(f"{item.path}: {error.strerror or error}")
        return ExitCode.USAGE
    except UplinkError as error:
        terminal.failure(f"{item.path}: {message(error)}")
        return exit_code(error)
    text = f"{sent.name}: {sent.size} bytes, safe and verified"
    if sent.sent_bytes == 0 and sent.size:
        text += "; the server had it already"
    elif sent.resumes:
        text += f"; resumed {sent.resumes} times, {sent.resent_bytes} bytes sent again"
    terminal.result(text, _sent_record(sent))
    return ExitCode.OK


async def _send_file(uplink: Uplink, item: _Item, source: BufferedReader, terminal: Terminal) -> Sent:
    bar = terminal.bar(item.name, item.path.stat().st_size, item.position)
    try:
        return await uplink.send(
            source,
            item.name,
            tag=item.tag,
            metadata=FileMetadata(original_name=item.path.name),
            replace=item.replace,
            on_progress=bar.show,
        )
    finally:
        bar.close()


async def status(options: argparse.Namespace, settings: ConnectionSettings, terminal: Terminal) -> ExitCode:
    """Say how far the server is with a name."""
    async with _uplink(options, settings) as uplink:
        found = await uplink.status(options.name)
    size = None if found.size == SIZE_UNKNOWN else found.size
    expires_s = None if found.expires_s == NEVER_S else found.expires_s
    state = found.state.name.lower()
    of_size = "" if size is None else f" of {size}"
    terminal.result(
        f"{options.name}: {state}, {found.next_expected_byte}{of_size} bytes",
        {
            "name": options.name,
            "state": state,
            "upload_id": f"{found.upload_id:016x}",
            "next_expected_byte": found.next_expected_byte,
            "ranges_beyond": [{"start": span.start, "end": span.end} for span in found.ranges or ()],
            "size": size,
            "expires_s": expires_s,
        },
    )
    return ExitCode.NOT_FOUND if found.state is UploadState.NONE else ExitCode.OK


async def list_files(options: argparse.Namespace, settings: ConnectionSettings, terminal: Terminal) -> ExitCode:
    """List the device's files, or all that a token may read."""
    async with _control_plane(settings) as control_plane:
        async for file in control_plane.files(settings.device, tuple(options.state), options.prefix):
            size = "?" if file.size is None else str(file.size)
            terminal.result(f"{file.updated}  {file.state:<9}  {size:>15}  {file.name}", _file_record(file))
    return ExitCode.OK


async def get(options: argparse.Namespace, settings: ConnectionSettings, terminal: Terminal) -> ExitCode:
    """Download a file; resumes a download that broke off."""
    target = options.output or _local_name(options.name)
    if target.exists() and not options.force:
        raise UsageError(f"{target} is there already: remove it, give --output, or give --force to replace it")
    async with _control_plane(settings) as control_plane:
        file = await control_plane.find(settings.device_or_raise(), options.name)
        bar = terminal.bar(target.name, file.size or 0)
        try:
            await control_plane.download(file, target, bar.reach)
        finally:
            bar.close()
    terminal.result(f"{target}: {file.size} bytes, digest verified", {**_file_record(file), "path": str(target)})
    return ExitCode.OK


async def remove(options: argparse.Namespace, settings: ConnectionSettings, terminal: Terminal) -> ExitCode:
    """Delete a file, or cancel its upload."""
    async with _control_plane(settings) as control_plane:
        file = await control_plane.find(settings.device_or_raise(), options.name)
        await control_plane.delete(file)
    terminal.result(f"{file.name}: deleted", {**_file_record(file), "state": "deleted"})
    return ExitCode.OK


def _uplink(options: argparse.Namespace, settings: ConnectionSettings) -> Uplink:
    return Uplink(
        settings.host, settings.port, settings.credentials(), tls=settings.tls, deadline_s=options.give_up_after
    )


@asynccontextmanager
async def _control_plane(settings: ConnectionSettings) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(settings.http, token=settings.token, tls=settings.https) as control_plane:
        if settings.token is None:
            await control_plane.exchange(settings.tenant, settings.device_or_raise(), settings.secret or "")
        yield control_plane


def _tag(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        tag = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"tag {text!r}: write it in hexadecimal") from None
    if len(tag) > TAG_BYTES_MAX:
        raise UsageError(f"the tag has {len(tag)} bytes, {TAG_BYTES_MAX} are allowed")
    return tag


def _local_name(name: str) -> Path:
    last = PurePosixPath(name).name
    if not last or last == ".." or "\0" in last:
        raise UsageError(f"the name {name!r} is none for a local file: give --output")
    return Path(last)


def _sent_record(sent: Sent) -> dict[str, str | int | None]:
    return {
        "name": sent.name,
        "upload_id": f"{sent.upload_id:016x}",
        "size": sent.size,
        "crc32c": None if sent.crc32c is None else f"{sent.crc32c:08x}",
        "sha256": None if sent.sha256 is None else sent.sha256.hex(),
        "resumes": sent.resumes,
        "sent_bytes": sent.sent_bytes,
        "resent_bytes": sent.resent_bytes,
    }


def _file_record(file: RemoteFile) -> dict[str, str | int | None]:
    return {
        "id": file.id,
        "device": file.device,
        "name": file.name,
        "state": file.state,
        "size": file.size,
        "next_expected_byte": file.next_expected_byte,
        "updated": file.updated,
        "crc32c": file.crc32c,
        "sha256": file.sha256,
    }
