"""How a complete file is described to those who download it: validators, media type, file name, digests."""

import base64
import re
import unicodedata
from email.utils import formatdate
from urllib.parse import quote

from control.conditions import Validators
from daemon.catalog.records import Upload

OCTET_STREAM = "application/octet-stream"

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - the token of RFC 9110, section 5.6.2, not a secret
_MEDIA_TYPE = re.compile(
    rf"(?!multipart/){_TOKEN}/{_TOKEN}"
    rf'(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"(?:[ !#-\[\]-~]|\\[ -~])*"))*',
    re.ASCII | re.IGNORECASE,
)

_FALLBACK_UNSAFE = re.compile(r'[^ -~]|["\\%]')
"""What must not stand in the quoted file name: not ASCII, the quoting itself, and what looks like an escape."""

_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"
"""attr-char of RFC 8187, section 3.2.1, beside letters and digits."""


def validators(file: Upload, *, date_is_strong: bool) -> Validators:
    """The strong ETag and the date of a complete file; its bytes never change under one id."""
    digest = file.sha256.hex()[:16] if file.sha256 is not None else f"{file.crc32c or 0:08x}"
    return Validators(f'"{file.id:016x}-{digest}"', (file.completed_ms or 0) // 1000, date_is_strong)


def headers(file: Upload, known_by: Validators) -> dict[str, str]:
    """Every header field that describes the file and does not depend on the part asked for."""
    described = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(file),
        "ETag": known_by.etag,
        "Last-Modified": formatdate(known_by.modified_s, usegmt=True),
    }
    digest = repr_digest(file)
    if digest:
        described["Repr-Digest"] = digest
    return described


def media_type(declared: str) -> str:
    """The type the device declared if it is one (RFC 9110, section 8.3.1), else application/octet-stream.

    A multipart type is replaced: it would look like an answer to several ranges.
    """
    return declared if _MEDIA_TYPE.fullmatch(declared) else OCTET_STREAM


def disposition(file: Upload) -> str:
    """An attachment under the file's own name, harmless in any header, shell or folder (RFC 6266, RFC 8187)."""
    name = re.split(r"[/\\]", file.metadata.original_name or file.name)[-1].strip(" ")
    # Categories C*: controls, and the format characters that make "gpj.exe" read as "exe.jpg".
    name = "".join("_" if unicodedata.category(char)[0] == "C" else char for char in name)
    if not name.strip("."):
        name = f"{file.id:016x}"
    fallback = _FALLBACK_UNSAFE.sub("_", name)
    if fallback == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe=_ATTRIBUTE_CHARACTERS)}"


def repr_digest(file: Upload) -> str:
    """Repr-Digest (RFC 9530) of the whole file, which holds for every part of it; "" if no digest is known."""
    known = []
    if file.sha256 is not None:
        known.append(f"sha-256=:{base64.b64encode(file.sha256).decode()}:")
    if file.crc32c is not None:
        known.append(f"crc32c=:{base64.b64encode(file.crc32c.to_bytes(4, 'big')).decode()}:")
    return ", ".join(known)
