"""Base64url and JSON in the one form that means one thing."""

import pytest

from authz.strict import base64url, json_object


def test_canonical_base64url_is_decoded() -> None:
    assert base64url("-_8") == b"\xfb\xff"
    assert base64url("") == b""


@pytest.mark.parametrize("text", ["+/8", "-_8=", "-_9", "-_8 ", "-", "-_8\n", "-_\u00e9", "-\uff3f8"])
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        base64url(text)


def test_a_json_object_is_decoded() -> None:
    assert json_object(b'{"a": {"b": [1, 2.5, null]}}') == {"a": {"b": [1, 2.5, None]}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1} x',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_what_can_be_read_in_two_ways_is_no_json_object(data: bytes) -> None:
    with pytest.raises(ValueError):
        json_object(data)
