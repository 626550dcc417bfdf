"""Are they in the form that the contract says: a request's query and JSON, before the edge makes a message of them.

Envoy's transcoder is lenient: it drops members that it does not know, takes "yes" for true, the last of two values and
names without quotes, and lets the query overrule body and path. What it refuses by itself is left to it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from authz.credentials import ACCESS_TOKEN, Request, headers
from authz.forms import Fields, Form, Forms, Problems, Twice
from services.runtime.contract import Binding, Method
from services.runtime.errors import FieldViolation, InvalidArgument, InvalidRequest

_CROWDED: Mapping[bytes, int] = {b'"': 20_000, b"{": 5_000, b"[": 5_000, b",": 20_000}
"""What no message of the contract comes near: a MiB of `{},` takes a quarter of a second, and nobody is answered."""
_LONGEST_NUMBER = 30
_SMALL = 8 * 1024
"""Bytes, among which there cannot be too many of them."""
_JSON = re.compile(r'application/json[ \t]*(;[ \t]*charset=("utf-8"|utf-8)[ \t]*)?', re.IGNORECASE)
_VARIABLE = re.compile(r"\{(\w+)\}")


class UnsupportedMediaType(InvalidArgument):
    """The body's Content-Type is not JSON's, or there is none."""

    http_status = 415
    message = "The Content-Type of a body must be application/json."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("Content-Type", "must be application/json, in UTF-8")])


class _Expected(NamedTuple):
    """What a binding takes, compiled once."""

    body: Form | None
    body_path: str
    """Where the body is in the request: `user.`, or nowhere in particular."""
    required: tuple[str, ...]
    """What makes a request without a body wrong."""
    query: Fields
    query_token: bool


_NOTHING = _Expected(None, "", (), Fields({}), query_token=False)


class Requests:
    """The contract's HTTP bindings, as far as they take queries and JSON."""

    def __init__(self, contract: Path, methods: Mapping[str, Method]) -> None:
        """Compiles them out of the contract's descriptor set. Raises ContractError for a field without a form."""
        pool = DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(contract.read_bytes()).file:
            pool.Add(file)
        forms = Forms()
        self._expected: Mapping[tuple[str, str | None], _Expected] = {
            (method.rpc, binding.body): _compile(
                pool.FindMessageTypeByName(method.request_type), forms, method, binding
            )
            for method in methods.values()
            if method.access != "none" and not method.client_streaming
            for binding in method.bindings
        }

    def require_strict(self, method: Method, body_field: str | None, http: Request) -> None:
        """Lets pass what the contract describes. Where there is no `body_field` (uploads, gRPC) the body is not shown.

        Raises InvalidRequest or UnsupportedMediaType.
        """
        expected = self._expected.get((method.rpc, body_field), _NOTHING)
        problems = Problems()
        _, _, query = http.path.partition("?")
        if query:
            _check_query(query, expected, problems)
        if body_field is not None:
            if body := http.raw_body:
                _check_body(body, headers(http, "content-type"), expected, problems)
            elif expected.required:
                problems.extend(FieldViolation(name, "is required") for name in expected.required)
        if problems:
            raise InvalidRequest(*problems)


def _check_query(query: str, expected: _Expected, problems: Problems) -> None:
    try:
        parameters = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        problems.add("", "the query is not UTF-8")
        return
    given: set[str] = set()
    for name, text in parameters:
        if not (expected.query_token and name == ACCESS_TOKEN):
            expected.query.check_parameter(name, text, given, problems)
        if problems.full:
            return


def _check_body(body: bytes, content_types: Sequence[str], expected: _Expected, problems: Problems) -> None:
    if expected.body is None:
        problems.add("", "this takes no body")
        return
    if len(content_types) != 1 or not _JSON.fullmatch(content_types[0]):
        raise UnsupportedMediaType
    if len(body) > _SMALL and _is_crowded(body):
        problems.add("", "the body has too many values")
        return
    try:
        value = _DECODER.decode(body.decode())
    except UnicodeDecodeError:
        problems.add("", "the body is not UTF-8")
    except json.JSONDecodeError as error:
        problems.add("", f"the body is not JSON (line {error.lineno}, column {error.colno})")
    except RecursionError:
        problems.add("", "the body is nested too deeply")
    except ValueError:
        problems.add("", "the body has a number that is none, or too long")
    else:
        expected.body.check(value, expected.body_path, problems)


def _is_crowded(body: bytes) -> bool:
    """Tells whether it has more names, objects, arrays or items than are worth a look."""
    return any(body.count(mark) - body.count(b"\\" + mark) > most for mark, most in _CROWDED.items())


def _compile(request: Descriptor, forms: Forms, method: Method, binding: Binding) -> _Expected:
    in_path = _VARIABLE.findall(binding.template)
    whole = forms.of(request).without(in_path)
    body: Form | None
    if binding.body == "*":
        required = [one for one in request.fields if one.name not in in_path and _is_required(one)]
        body, path, query = (
            whole,
            "",
            whole.without([field.name for field in request.fields if field.name not in in_path]),
        )
    elif binding.body:
        field = request.fields_by_name[binding.body]
        required = [field] if _is_required(field) else []
        body, path, query = whole.form(field.name), field.json_name, whole.without([field.name])
    else:
        required, body, path, query = [], None, "", whole
    return _Expected(body, path, tuple(field.json_name for field in required), query, method.query_token)


def _is_required(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any] | Twice:
    value = dict(members)
    if len(value) == len(members):
        return value
    names = [name for name, _ in members]
    return Twice(next(name for name in value if names.count(name) > 1))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:  # it takes the square of their time
        raise ValueError("too many digits")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_whole, parse_constant=_refuse)
