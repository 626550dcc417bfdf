"""Conditional and partial downloads, by RFC 9110, 13 and 14."""

import random
from datetime import UTC, datetime

import pytest

from services.document.ranges import PreconditionNotMet, RangeNotSatisfiable, Representation, Selection, select

TAG = '"' + "ab" * 32 + '"'
OTHER = '"' + "cd" * 32 + '"'
FILE = Representation("ab" * 32, 1000, datetime(2026, 11, 21, 12, 0, 0, 999_999, tzinfo=UTC))
SAME, EARLIER, LATER = (f"Sat, 21 Nov 2026 {time} GMT" for time in ("12:00:00", "11:59:59", "12:00:01"))
WHOLE, NOTHING = Selection(200, 0, 1000), Selection(304, 0, 0)


def part(start: int, end: int) -> Selection:
    return Selection(206, start, end)


RANGES = {
    "no range is the whole file": ("", WHOLE),
    "the first hundred bytes": ("bytes=0-99", part(0, 100)),
    "one byte": ("bytes=0-0", part(0, 1)),
    "from the hundredth byte on": ("bytes=100-", part(100, 1000)),
    "the last five hundred": ("bytes=-500", part(500, 1000)),
    "the last byte": ("bytes=-1", part(999, 1000)),
    "more of the end than there is is all of it": ("bytes=-5000", part(0, 1000)),
    "an end behind the end": ("bytes=900-5000", part(900, 1000)),
    "an end with a hundred digits": ("bytes=900-" + "9" * 100, part(900, 1000)),
    "all of it, by its range": ("bytes=0-", part(0, 1000)),
    "a unit in capitals": ("BYTES=0-99", part(0, 100)),
    "white space and empty members of a list": ("bytes= , 0-99 ,", part(0, 100)),
    "several ranges are ignored": ("bytes=0-1,5-6", WHOLE),
    "two headers are several ranges": ("bytes=0-1, bytes=5-6", WHOLE),
    "another unit is ignored": ("pages=0-1", WHOLE),
    "a range without a unit is ignored": ("0-99", WHOLE),
    "a range that ends before it begins is ignored": ("bytes=99-0", WHOLE),
    "a range without numbers is ignored": ("bytes=-", WHOLE),
    "a range without a range is ignored": ("bytes=", WHOLE),
    "a negative number is ignored": ("bytes=--5", WHOLE),
    "letters are ignored": ("bytes=a-b", WHOLE),
    "digits of other scripts are ignored": ("bytes=٠-٩", WHOLE),
    "more digits than anybody means are ignored": ("bytes=0-" + "9" * 5000, WHOLE),
}


@pytest.mark.parametrize("case", RANGES)
def test_a_range_selects_what_it_says(case: str) -> None:
    header, expected = RANGES[case]
    assert select({"range": header} if header else {}, FILE) == expected


@pytest.mark.parametrize(
    "header", ["bytes=1000-", "bytes=1000-1001", "bytes=5000-6000", "bytes=-0", "bytes=" + "9" * 99 + "-"]
)
def test_a_range_without_a_byte_of_the_file_is_not_satisfiable(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        select({"range": header}, FILE)
    assert caught.value.headers == (("content-range", "bytes */1000"),)


VALIDATORS = {
    "If-None-Match with the etag": ({"if-none-match": TAG}, NOTHING),
    "If-None-Match with the etag as a weak one": ({"if-none-match": f"W/{TAG}"}, NOTHING),
    "If-None-Match with a list": ({"if-none-match": f'"x", W/"y",,  {TAG}'}, NOTHING),
    "If-None-Match with a comma in a tag": ({"if-none-match": f'"x,y", {TAG}'}, NOTHING),
    "If-None-Match with any": ({"if-none-match": " * "}, NOTHING),
    "If-None-Match with others": ({"if-none-match": f"{OTHER}, W/{OTHER}"}, WHOLE),
    "If-None-Match with the etag inside another": ({"if-none-match": f"'{TAG}'"}, WHOLE),
    "If-None-Match without quotes": ({"if-none-match": TAG.strip('"')}, WHOLE),
    "If-None-Match goes before a range": ({"if-none-match": TAG, "range": "bytes=0-1"}, NOTHING),
    "If-None-Match goes before an impossible range": ({"if-none-match": TAG, "range": "bytes=9999-"}, NOTHING),
    "If-None-Match with others, and a range": ({"if-none-match": OTHER, "range": "bytes=0-1"}, part(0, 2)),
    "If-None-Match goes before If-Modified-Since": ({"if-none-match": OTHER, "if-modified-since": LATER}, WHOLE),
    "If-Modified-Since, the same second": ({"if-modified-since": SAME}, NOTHING),
    "If-Modified-Since, later": ({"if-modified-since": LATER}, NOTHING),
    "If-Modified-Since, earlier": ({"if-modified-since": EARLIER}, WHOLE),
    "If-Modified-Since, in RFC 850's format": ({"if-modified-since": "Saturday, 21-Nov-26 12:00:00 GMT"}, NOTHING),
    "If-Modified-Since, in asctime's format": ({"if-modified-since": "Sat Nov 21 12:00:00 2026"}, NOTHING),
    "If-Modified-Since, no date": ({"if-modified-since": "yesterday"}, WHOLE),
    "If-Range with the etag": ({"if-range": TAG, "range": "bytes=0-1"}, part(0, 2)),
    "If-Range with a weak one": ({"if-range": f"W/{TAG}", "range": "bytes=0-1"}, WHOLE),
    "If-Range with another": ({"if-range": OTHER, "range": "bytes=0-1"}, WHOLE),
    "If-Range with the date": ({"if-range": SAME, "range": "bytes=0-1"}, part(0, 2)),
    "If-Range with a later date": ({"if-range": LATER, "range": "bytes=0-1"}, WHOLE),
    "If-Range that does not hold, and an impossible range": ({"if-range": OTHER, "range": "bytes=9999-"}, WHOLE),
    "If-Range without a range": ({"if-range": OTHER}, WHOLE),
    "If-Match with the etag": ({"if-match": f"{OTHER}, {TAG}"}, WHOLE),
    "If-Match with any": ({"if-match": "*"}, WHOLE),
    "If-Match goes before If-Unmodified-Since": ({"if-match": TAG, "if-unmodified-since": EARLIER}, WHOLE),
    "If-Unmodified-Since, the same second": ({"if-unmodified-since": SAME}, WHOLE),
    "If-Unmodified-Since, no date": ({"if-unmodified-since": "tomorrow"}, WHOLE),
}


@pytest.mark.parametrize("case", VALIDATORS)
def test_validators_decide_whether_a_file_is_sent(case: str) -> None:
    headers, expected = VALIDATORS[case]
    assert select(headers, FILE) == expected


@pytest.mark.parametrize(
    "headers", [{"if-match": OTHER}, {"if-match": f"W/{TAG}"}, {"if-match": ""}, {"if-unmodified-since": EARLIER}]
)
def test_a_request_for_another_file_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(PreconditionNotMet):
        select(headers, FILE)


def test_no_header_breaks_it() -> None:
    made = random.Random(5)  # noqa: S311
    names = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
    letters = [
        "bytes=",
        '"',
        "W/",
        ",",
        "-",
        "*",
        " ",
        "0",
        "9999999999",
        "GMT",
        "Sat, 21 Nov",
        "99999",
        ":",
        "+0100",
        TAG,
    ]
    for _ in range(20_000):
        headers = {name: "".join(made.choices(letters, k=made.randrange(8))) for name in made.sample(names, k=2)}
        try:
            selected = select(headers, FILE)
        except (PreconditionNotMet, RangeNotSatisfiable):
            continue
        assert selected.status == 304 or 0 <= selected.start < selected.end <= 1000, headers
