"""The rules that the contract gives for the fields of its messages (buf.validate), and one for text from outside."""

import re
from collections.abc import Iterator
from typing import Any

import protovalidate
from google.protobuf.message import Message

from services.runtime.errors import FieldViolation, InvalidRequest

# Control characters but tab and line breaks, and the two that are none (no XML takes them). In a log, a terminal or an
# e-mail a text can look like another with them.
_NOT_PLAIN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")

_NO_TEXT = (int, bool, float, bytes)


def require_valid(message: Message) -> None:
    """Raises InvalidRequest for what breaks a rule."""
    violations = protovalidate.collect_violations(message)
    if violations:
        raise InvalidRequest(
            *(FieldViolation(_json_path(one.proto), one.proto.message, one.proto.rule_id) for one in violations)
        )


def require_plain_text(message: Message) -> None:
    """Raises InvalidRequest for control characters in any text, however deep, but tabs and line breaks."""
    paths = list(_not_plain(message, ""))
    if paths:
        raise InvalidRequest(*(FieldViolation(path, "must not have control characters") for path in paths))


def _not_plain(message: Message, inside: str) -> Iterator[str]:
    for field, value in message.ListFields():
        if type(value) is str:
            if not value.isprintable() and _NOT_PLAIN.search(value):
                yield inside + field.json_name
        elif type(value) in _NO_TEXT:
            continue
        elif not field.is_repeated:
            yield from _not_plain(value, f"{inside}{field.json_name}.")
        elif field.message_type is not None:
            for place, item in enumerate(value):
                yield from _not_plain(item, f"{inside}{field.json_name}[{place}].")
        elif field.type == field.TYPE_STRING:
            for place, item in enumerate(value):
                if not item.isprintable() and _NOT_PLAIN.search(item):
                    yield f"{inside}{field.json_name}[{place}]"


def _json_path(violation: Any) -> str:
    """The field as a REST client writes it: lines[3].unitAmount.currencyCode."""
    elements = violation.field.elements if violation.field else ()
    return ".".join(_json_name(one.field_name) + _place(one.subscript) for one in elements)


def _place(subscript: Any) -> str:
    return f"[{subscript.value}]" if subscript is not None and subscript.field == "index" else ""


def _json_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
