"""Names of files, devices and tenants, tags and metadata. PROTOCOL.md §4 and §6."""

from dataclasses import replace

import pytest

from protocol.constants import (
    METADATA_BYTES_MAX,
    NAME_BYTES_MAX,
    OFFSET_MAX,
    SIZE_UNKNOWN,
    TAG_BYTES_MAX,
    Disposition,
)
from protocol.errors import ErrorCode
from protocol.frames import Open
from protocol.naming import check_open, is_device, is_name, is_tenant, is_text

OPEN = Open(Disposition.RESUME_OR_CREATE, 100, "log.bin")
BAD_UTF8 = b"a\xffb".decode("utf-8", "surrogateescape")
CONTROLS = [chr(code) for code in (*range(32), *range(0x7F, 0xA0))]


@pytest.mark.parametrize(
    "name",
    ["a", "log.bin", "etc/passwd", "a..b", "...", "/", ".", "con", "a b", "Überlänge.bin", "日本語", "🛰", "e\u0301"],
)
def test_a_name_may_be_any_text(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", BAD_UTF8, "\ud800", *(f"a{control}b" for control in CONTROLS)])
def test_a_name_is_utf8_without_control_characters(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("name", ["pump-7", "7", "A" * 128, "00:1b:44:11:3a:b7", "a._:-"])
def test_a_valid_device_name(name: str) -> None:
    assert is_device(name)


@pytest.mark.parametrize("name", ["", " ", "-pump", "pump/7", "pümp", "p" * 129, "pump\n", "../x", ":7"])
def test_an_invalid_device_name(name: str) -> None:
    assert not is_device(name)


@pytest.mark.parametrize("name", ["default", "4", "a" * 64, "a._-"])
def test_a_valid_tenant_name(name: str) -> None:
    assert is_tenant(name)


@pytest.mark.parametrize("name", ["", "_acme", "acme:1", "a" * 65, "acme\n", "a/b"])
def test_an_invalid_tenant_name(name: str) -> None:
    assert not is_tenant(name)


@pytest.mark.parametrize("name", ["..", "../x", "a/..", "a/../b", "/..", "../../etc/passwd"])
def test_a_name_cannot_lead_out_of_a_directory(name: str) -> None:
    assert not is_name(name)


def test_names_are_measured_in_bytes() -> None:
    assert is_name("a" * NAME_BYTES_MAX)
    assert not is_name("a" * (NAME_BYTES_MAX + 1))
    assert is_name("ä" * (NAME_BYTES_MAX // 2))
    assert not is_name("ä" * (NAME_BYTES_MAX // 2 + 1))


def test_metadata_text_may_be_empty() -> None:
    assert is_text("")


@pytest.mark.parametrize(
    "request_",
    [
        OPEN,
        replace(OPEN, size=0),
        replace(OPEN, size=OFFSET_MAX),
        replace(OPEN, size=SIZE_UNKNOWN),
        replace(OPEN, tag=b""),
        replace(OPEN, tag=bytes(TAG_BYTES_MAX)),
        replace(OPEN, content_type="text/plain", external_id="7", original_name="x" * 900),
        replace(OPEN, external_id="x" * METADATA_BYTES_MAX),
    ],
)
def test_a_good_request_passes(request_: Open) -> None:
    assert check_open(request_) is None


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (replace(OPEN, name=""), ErrorCode.NAME_INVALID),
        (replace(OPEN, name="nul\0"), ErrorCode.NAME_INVALID),
        (replace(OPEN, name="x" * 256), ErrorCode.NAME_INVALID),
        (replace(OPEN, name=BAD_UTF8), ErrorCode.NAME_INVALID),
        (replace(OPEN, size=OFFSET_MAX + 1), ErrorCode.SIZE_INVALID),
        (replace(OPEN, size=SIZE_UNKNOWN - 1), ErrorCode.SIZE_INVALID),
        (replace(OPEN, tag=bytes(TAG_BYTES_MAX + 1)), ErrorCode.METADATA_INVALID),
        (replace(OPEN, content_type="text/plain\r\n"), ErrorCode.METADATA_INVALID),
        (replace(OPEN, external_id=BAD_UTF8), ErrorCode.METADATA_INVALID),
        (replace(OPEN, original_name="\x7f"), ErrorCode.METADATA_INVALID),
        (replace(OPEN, external_id="x" * (METADATA_BYTES_MAX + 1)), ErrorCode.METADATA_INVALID),
        (replace(OPEN, content_type="ä" * 256, original_name="x" * 513), ErrorCode.METADATA_INVALID),
    ],
)
def test_a_bad_request_gets_its_code_and_what_is_allowed(request_: Open, code: ErrorCode) -> None:
    refusal = check_open(request_)
    assert refusal is not None
    assert refusal[0] is code
    assert refusal[1]
