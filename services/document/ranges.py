"""Which part of a file a request asks for, and whether it needs it at all (RFC 9110, 13 and 14). No I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from services.runtime.errors import FailedPrecondition, OutOfRange

OK, PARTIAL, NOT_MODIFIED = 200, 206, 304

_TAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_TAGS = re.compile(rf"[\s,]*{_TAG}(?:\s*,[\s,]*{_TAG})*[\s,]*")
_RANGE = re.compile(r"([0-9]{0,100})-([0-9]{0,100})")


class RangeNotSatisfiable(OutOfRange):
    """The range that was asked for has no byte of the file."""

    http_status = 416
    message = "The file has {size} bytes, and none in this range."

    def __init__(self, size: int) -> None:
        super().__init__(size=size)
        self.headers = (("content-range", f"bytes */{size}"),)


class PreconditionNotMet(FailedPrecondition):
    """The request is for another file than the one that is there (If-Match, If-Unmodified-Since)."""

    http_status = 412
    message = "The file is not the one that the request's {header} names."


@dataclass(frozen=True, slots=True)
class Representation:
    """What there is to be sent."""

    sha256: str
    size: int
    modified: datetime

    @property
    def etag(self) -> str:
        """A strong validator."""
        return f'"{self.sha256}"'

    @property
    def last_modified(self) -> str:
        """A strong validator too: files never change."""
        return format_datetime(self.modified.astimezone(UTC), usegmt=True)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is sent of it: bytes from `start` up to but not including `end`."""

    status: int
    """OK, PARTIAL or NOT_MODIFIED."""
    start: int
    end: int


def select(headers: Mapping[str, str], has: Representation) -> Selection:
    """Evaluates a request's headers, named in lower case, in the order of RFC 9110, 13.2.2. Ignores malformed ones.

    Raises PreconditionNotMet or RangeNotSatisfiable.
    """
    _require(headers, has)
    if _not_modified(headers, has):
        return Selection(NOT_MODIFIED, 0, 0)
    part = _part(headers.get("range", ""), has.size) if _range_holds(headers.get("if-range"), has) else None
    return Selection(PARTIAL, *part) if part else Selection(OK, 0, has.size)


def _require(headers: Mapping[str, str], has: Representation) -> None:
    if (tags := headers.get("if-match")) is not None:
        if tags.strip() != "*" and has.etag not in _tags(tags):
            raise PreconditionNotMet(header="If-Match")
    elif (date := _date(headers.get("if-unmodified-since", ""))) and _seconds(has.modified) > date:
        raise PreconditionNotMet(header="If-Unmodified-Since")


def _not_modified(headers: Mapping[str, str], has: Representation) -> bool:
    if (tags := headers.get("if-none-match")) is not None:
        return tags.strip() == "*" or has.etag in [tag.removeprefix("W/") for tag in _tags(tags)]
    date = _date(headers.get("if-modified-since", ""))
    return date is not None and _seconds(has.modified) <= date


def _range_holds(validator: str | None, has: Representation) -> bool:
    if validator is None or validator.strip() == has.etag:
        return True
    return _date(validator) == _seconds(has.modified)


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Returns the first byte and the one after the last of a single range; None: the header is to be ignored."""
    unit, _, ranges = header.partition("=")
    asked = [one.strip(" \t") for one in ranges.split(",") if one.strip(" \t")]
    found = _RANGE.fullmatch(asked[0]) if len(asked) == 1 and unit.strip().lower() == "bytes" else None
    if not found or found[0] == "-" or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return None
    if found[1]:
        start, end = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    else:
        start, end = max(size - int(found[2]), 0), size
    if start >= end:
        raise RangeNotSatisfiable(size)
    return start, end


def _tags(header: str) -> list[str]:
    return re.findall(_TAG, header) if _TAGS.fullmatch(header) else []


def _date(header: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _seconds(time: datetime) -> datetime:
    """A validator's precision."""
    return time.replace(microsecond=0)
