"""Conditional requests (RFC 9110, section 13) against one selected representation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Protocol

_ENTITY_TAG = re.compile(r'(?P<weak>W/)?(?P<opaque>"[\x21\x23-\x7e\x80-\U0010ffff]*")')

_DATE_FORMATS = (
    "%a, %d %b %Y %H:%M:%S GMT",
    "%A, %d-%b-%y %H:%M:%S GMT",
    "%a %b %d %H:%M:%S %Y",
)
"""IMF-fixdate, and the two obsolete forms that a recipient must still accept (RFC 9110, section 5.6.7)."""


class Headers(Protocol):
    """The part of a header map that is read here; a name's case does not matter."""

    def get(self, key: str, /) -> str | None: ...

    def getall(self, key: str, /) -> Sequence[str]: ...


class ConditionResult(Enum):
    """What follows from the preconditions of a request."""

    PROCEED = auto()
    NOT_MODIFIED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one representation from another.

    `etag` is strong, quotes included; `modified_s` is Last-Modified in Unix seconds. `date_is_strong` says that
    the resource cannot have changed twice within that second (RFC 9110, section 8.8.2.2).
    """

    etag: str
    modified_s: int
    date_is_strong: bool


def evaluate(headers: Headers, validators: Validators) -> ConditionResult:
    """Evaluate the preconditions of a GET or HEAD, except If-Range, in the order of RFC 9110, section 13.2.2."""
    return _may_proceed(headers, validators) or _is_news(headers, validators) or ConditionResult.PROCEED


def range_applies(headers: Headers, validators: Validators) -> bool:
    """False when If-Range names another representation, so that Range must be ignored (section 13.1.5)."""
    value = headers.get("If-Range")
    if value is None:
        return True
    value = value.strip()
    if '"' in value:
        return value == validators.etag
    return validators.date_is_strong and _http_date_s(value) == validators.modified_s


def _may_proceed(headers: Headers, validators: Validators) -> ConditionResult | None:
    if headers.get("If-Match") is not None:
        if not _lists(headers, "If-Match", validators.etag, weak_counts=False):
            return ConditionResult.FAILED
    elif (unmodified_since := headers.get("If-Unmodified-Since")) is not None:
        limit_s = _http_date_s(unmodified_since)
        if limit_s is not None and validators.modified_s > limit_s:
            return ConditionResult.FAILED
    return None


def _is_news(headers: Headers, validators: Validators) -> ConditionResult | None:
    if headers.get("If-None-Match") is not None:
        if _lists(headers, "If-None-Match", validators.etag, weak_counts=True):
            return ConditionResult.NOT_MODIFIED
    elif (modified_since := headers.get("If-Modified-Since")) is not None:
        limit_s = _http_date_s(modified_since)
        if limit_s is not None and validators.modified_s <= limit_s:
            return ConditionResult.NOT_MODIFIED
    return None


def _lists(headers: Headers, name: str, etag: str, *, weak_counts: bool) -> bool:
    value = ",".join(headers.getall(name)).strip()
    if value == "*":
        return True
    return any(
        match["opaque"] == etag and (weak_counts or match["weak"] is None) for match in _ENTITY_TAG.finditer(value)
    )


def _http_date_s(value: str) -> int | None:
    for date_format in _DATE_FORMATS:
        try:
            moment = datetime.strptime(value.strip(), date_format).replace(tzinfo=UTC)
        except ValueError:
            continue
        return int(moment.timestamp())
    return None
