"""The rules that the contract gives for the fields of its messages (buf.validate)."""

from typing import Any

import protovalidate
from google.protobuf.message import Message

from services.runtime.errors import FieldViolation, InvalidRequest


def require_valid(message: Message) -> None:
    """Raises InvalidRequest for what breaks a rule."""
    violations = protovalidate.collect_violations(message)
    if violations:
        raise InvalidRequest(
            *(FieldViolation(_json_path(one.proto), one.proto.message, one.proto.rule_id) for one in violations)
        )


def _json_path(violation: Any) -> str:
    """The field as a REST client writes it: amount.currencyCode."""
    elements = violation.field.elements if violation.field else ()
    return ".".join(_json_name(element.field_name) for element in elements)


def _json_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
