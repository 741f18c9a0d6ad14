"""How a file is described: whatever a device called it, its header fields are harmless and exact."""

import base64
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.representation import OCTET_STREAM, disposition, headers, media_type, repr_digest, validators
from daemon.catalog.records import Metadata
from tests.support.fake_ports import make_file


@pytest.mark.parametrize(
    "declared",
    ["text/plain", "application/vnd.example+json", "text/plain; charset=utf-8", 'text/plain;a="b;\\"c"', "IMAGE/PNG"],
)
def test_a_media_type_is_kept(declared: str) -> None:
    assert media_type(declared) == declared


@pytest.mark.parametrize(
    "declared",
    ["", "text", "text/", "/plain", "text/plain;", "text/plain; charset", "text/plain\r\nSet-Cookie: a=b", "text/ü",
     "a b/c", "text/plain\n", "multipart/byteranges; boundary=x", "Multipart/form-data", "text/html, text/plain"],
)  # fmt: skip
def test_what_is_no_media_type_becomes_octet_stream(declared: str) -> None:
    assert media_type(declared) == OCTET_STREAM


@pytest.mark.parametrize(
    ("name", "original", "expected"),
    [
        ("log.bin", "", 'attachment; filename="log.bin"'),
        ("a/b/log.bin", "", 'attachment; filename="log.bin"'),
        ("../../etc/passwd", "", 'attachment; filename="passwd"'),
        ("x", "C:\\temp\\report.csv", 'attachment; filename="report.csv"'),
        ("..", "", 'attachment; filename="0000000000000abc"'),
        ("dir/", "", 'attachment; filename="0000000000000abc"'),
        ("naïve.txt", "", "attachment; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        ("€ rates", "", "attachment; filename=\"_ rates\"; filename*=UTF-8''%E2%82%AC%20rates"),
        ('a"b', "", "attachment; filename=\"a_b\"; filename*=UTF-8''a%22b"),
        ("50%41.txt", "", "attachment; filename=\"50_41.txt\"; filename*=UTF-8''50%2541.txt"),
        ("exe\u202egpj.scr", "", 'attachment; filename="exe_gpj.scr"'),
        ("x", "a\r\nSet-Cookie: b", 'attachment; filename="a__Set-Cookie: b"'),
    ],
)
def test_disposition(name: str, original: str, expected: str) -> None:
    assert disposition(make_file(name=name, metadata=Metadata("", "", original))) == expected


@given(name=st.text(min_size=1, max_size=80))
def test_no_name_escapes_its_header_field(name: str) -> None:
    value = disposition(make_file(name=name))
    assert value.isascii()
    assert value.isprintable()
    message = Message()
    message["Content-Disposition"] = value
    assert message.get_content_disposition() == "attachment"
    assert {key for key, _ in message.get_params(header="content-disposition") or []} <= {"attachment", "filename"}
    filename = message.get_filename()
    assert filename
    assert "/" not in filename.replace("%", "")
    assert filename not in {".", ".."}


def test_repr_digest_names_every_digest_that_is_known() -> None:
    sha256 = base64.b64encode(bytes(range(32))).decode()
    assert repr_digest(make_file()) == f"sha-256=:{sha256}:, crc32c=:CgsMDQ==:"
    assert repr_digest(make_file(sha256=None)) == "crc32c=:CgsMDQ==:"
    assert not repr_digest(make_file(sha256=None, crc32c=None))
    assert "Repr-Digest" not in headers(
        make_file(sha256=None, crc32c=None), validators(make_file(), date_is_strong=True)
    )


def test_the_etag_is_strong_and_tells_files_and_contents_apart() -> None:
    etags = [
        validators(file, date_is_strong=True).etag
        for file in (make_file(), make_file(id=1), make_file(sha256=bytes(32)), make_file(sha256=None))
    ]
    assert len(set(etags)) == len(etags)
    assert all(etag.startswith('"') and etag.endswith('"') for etag in etags)


def test_last_modified_is_when_the_file_was_completed() -> None:
    file = make_file(completed_ms=784111777_999)
    assert headers(file, validators(file, date_is_strong=True))["Last-Modified"] == "Sun, 06 Nov 1994 08:49:37 GMT"
