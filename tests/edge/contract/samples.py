"""Requests made up from the contract: every field filled, and how each binding carries them over HTTP."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.runtime.contract import Binding

_VARIABLE = re.compile(r"\{(\w+)\}")
_VALUES = {
    FieldDescriptor.CPPTYPE_INT32: 7,
    FieldDescriptor.CPPTYPE_UINT32: 7,
    FieldDescriptor.CPPTYPE_INT64: 2**60,
    FieldDescriptor.CPPTYPE_BOOL: True,
}


@dataclass(frozen=True)
class Sample:
    """An HTTP request and the message that it means."""

    path: str
    query: httpx.QueryParams
    content_type: str
    body: bytes | None
    message: Message


def sample(message_type: type[Message], binding: Binding) -> Sample:
    """Returns a request for the binding with every field of its message filled."""
    message = message_type()
    variables = _VARIABLE.findall(binding.template)
    _fill(message)
    for variable in variables:
        setattr(message, variable, f"{variable}-1.~")
    path = _VARIABLE.sub(lambda variable: str(getattr(message, variable[1])), binding.template)
    rest = message_type()
    rest.CopyFrom(message)
    for variable in variables:
        rest.ClearField(variable)
    if binding.body == "*":
        return Sample(path, httpx.QueryParams(), "application/json", json_format.MessageToJson(rest).encode(), message)
    content_type, body = "application/json", None
    if binding.body:
        part = getattr(rest, binding.body)
        if part.DESCRIPTOR.full_name == "google.api.HttpBody":
            content_type, body = part.content_type, part.data
        else:
            body = json_format.MessageToJson(part).encode()
        rest.ClearField(binding.body)
    return Sample(
        path, httpx.QueryParams(list(_query("", json_format.MessageToDict(rest)))), content_type, body, message
    )


def _fill(message: Message) -> None:
    match message.DESCRIPTOR.full_name:
        case "google.protobuf.FieldMask":
            message.paths.append("display_name")  # type: ignore[attr-defined]
        case "google.protobuf.Timestamp":
            message.seconds = 1_800_000_000  # type: ignore[attr-defined]
        case "google.api.HttpBody":
            message.content_type, message.data = "multipart/form-data; boundary=x", b"--x--\x00\xff"  # type: ignore[attr-defined]
        case _:
            for field in message.DESCRIPTOR.fields:
                _fill_field(message, field)


def _fill_field(message: Message, field: Any) -> None:
    if field.message_type and field.is_repeated:
        _fill(getattr(message, field.name).add())
    elif field.message_type:
        part = getattr(message, field.name)
        part.SetInParent()
        _fill(part)
    elif field.is_repeated:
        getattr(message, field.name).extend([_scalar(field)] * 2)
    else:
        setattr(message, field.name, _scalar(field))


def _scalar(field: Any) -> Any:
    if field.enum_type:
        return field.enum_type.values[-1].number
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return f"{field.name} é/&=+%?#1"
    return _VALUES[field.cpp_type]


def _query(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _query(f"{prefix}.{name}" if prefix else name, part)
    elif isinstance(value, list):
        for item in value:
            yield from _query(prefix, item)
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value)
