"""The JSON of each type of the contract: protobuf's JSON mapping, taken strictly, compiled once out of descriptors."""

import binascii
import math
import re
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from services.runtime.contract import ContractError
from services.runtime.errors import MOST_FIELDS, FieldViolation

_LONGEST_NAME = 64

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,99})(\.[0-9]{1,99})?([eE][+-]?[0-9]{1,3})?")
_NOT_PLAIN = re.compile(r"[^ -~]")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


class Problems(list[FieldViolation]):
    """What is wrong with a request, in the order found."""

    def add(self, path: str, description: str) -> None:
        """Takes down one more, unless there are enough."""
        if not self.full:
            self.append(FieldViolation(path, description))

    @property
    def full(self) -> bool:
        """Whether to look no further."""
        return len(self) >= MOST_FIELDS


class Twice(NamedTuple):
    """Stands for an object that has a member twice."""

    name: str


class Form(Protocol):
    """What the values of a type look like."""

    @property
    def once(self) -> bool:
        """Whether a query has one value of it at most."""

    def check(self, value: Any, path: str, problems: Problems) -> None:
        """Adds what is wrong with a value out of JSON. `path` is where it is: lines[3].quantity."""

    def check_text(self, text: str, path: str, problems: Problems) -> None:
        """Adds what is wrong with a value out of a query."""


class Value:
    """A single value."""

    def __init__(
        self, what: str, fits: Callable[[Any], bool], of_text: Callable[[str], Any] = str, *, once: bool = True
    ) -> None:
        self._problem = f"must be {what}"
        self._fits = fits
        self._of_text = of_text
        self.once = once

    def check(self, value: Any, path: str, problems: Problems) -> None:
        """Adds what is wrong."""
        if not self._fits(value):
            problems.add(path, self._problem)

    def check_text(self, text: str, path: str, problems: Problems) -> None:
        """Adds what is wrong."""
        self.check(self._of_text(text), path, problems)


class Many:
    """An array; in a query, a parameter that is repeated."""

    once = False

    def __init__(self, each: Form) -> None:
        self._each = each
        self.check_text = each.check_text

    def check(self, value: Any, path: str, problems: Problems) -> None:
        """Adds what is wrong with it and its items."""
        if type(value) is not list:
            problems.add(path, "must be an array")
            return
        for place, item in enumerate(value):
            self._each.check(item, f"{path}[{place}]", problems)
            if problems and problems.full:
                return


class Field(NamedTuple):
    """A member of an object."""

    name: str
    """In lowerCamelCase."""
    form: Form
    rivals: tuple[str, ...]
    """Members that cannot be beside it: its other name, and what else a oneof has."""


class Fields:
    """An object: a message's fields by both of their names."""

    once = True

    def __init__(self, fields: Mapping[str, Field], elsewhere: Collection[str] = ()) -> None:
        self._fields = fields
        self._elsewhere = elsewhere
        """Fields of the message that are not to be here, as the path or the body has them."""

    def without(self, names: Collection[str]) -> "Fields":
        """Returns an object that has not these fields, given by their names in the contract."""
        gone = {self._fields[name].name for name in names}
        elsewhere = {name for name, field in self._fields.items() if field.name in gone}
        kept = {name: field for name, field in self._fields.items() if name not in elsewhere}
        return Fields(kept, elsewhere.union(self._elsewhere))

    def form(self, name: str) -> Form:
        """Returns the form of a field."""
        return self._fields[name].form

    def check(self, value: Any, path: str, problems: Problems) -> None:
        """Adds what is wrong with it and its members."""
        inside = f"{path}." if path else ""
        if type(value) is not dict:
            if type(value) is Twice:
                problems.add(f"{inside}{shown(value.name)}", "is given twice")
            else:
                problems.add(path, "must be an object" if path else "the body must be a JSON object")
            return
        for name, member in value.items():
            field = self._fields.get(name)
            if field is None:
                problems.add(f"{inside}{shown(name)}", self._why_not(name))
            else:
                for rival in field.rivals:
                    if rival in value:
                        why = "is given twice" if rival == field.name else f"cannot be given beside {rival}"
                        problems.add(f"{inside}{field.name}", why)
                if member is not None:
                    field.form.check(member, f"{inside}{field.name}", problems)
            if problems and problems.full:
                return

    def check_text(self, text: str, path: str, problems: Problems) -> None:
        """Adds that a query cannot have an object, only what is in it."""
        del text
        problems.add(path, "cannot be written as one parameter")

    def check_parameter(self, name: str, text: str, given: set[str], problems: Problems) -> None:
        """Adds what is wrong with a parameter of a query: amount.units=5. `given` has those before it."""
        fields, path = self, ""
        *outer, last = name.split(".")
        for segment in outer:
            field = fields._fields.get(segment)
            if field is None or not isinstance(field.form, Fields):
                break
            fields, path = field.form, f"{path}{field.name}."
        else:
            field = fields._fields.get(last)
            if field is not None:
                path += field.name
                if path in given and field.form.once:
                    problems.add(path, "is given twice")
                given.add(path)
                field.form.check_text(text, path, problems)
                return
        problems.add(shown(name), self._why_not(name.partition(".")[0]))

    def _why_not(self, name: str) -> str:
        return "is not to be given here" if name in self._elsewhere else "is not known"


def shown(name: str) -> str:
    """Returns a name that a stranger gave as it can be repeated to them."""
    return _NOT_PLAIN.sub("?", name[:_LONGEST_NAME])


class Forms:
    """The forms of messages, each compiled once."""

    def __init__(self) -> None:
        self._fields: dict[str, dict[str, Field]] = {}

    def of(self, message: Descriptor) -> Fields:
        """Returns the form of a message. Raises ContractError for a field of a type that has none here."""
        known = self._fields.get(message.full_name)
        if known is None:
            known = self._fields[message.full_name] = {}  # filled below: a message may hold itself
            for field in message.fields:
                made = self._field(field)
                known |= {field.json_name: made, field.name: made}
                if field.name != field.json_name:
                    known[field.name] = made._replace(rivals=(field.json_name, *made.rivals))
        return Fields(known)

    def _field(self, field: FieldDescriptor) -> Field:
        form = self._form(field)
        others = field.containing_oneof.fields if field.containing_oneof else []
        rivals = {name for other in others if other is not field for name in (other.json_name, other.name)}
        return Field(field.json_name, Many(form) if field.is_repeated else form, tuple(sorted(rivals)))

    def _form(self, field: FieldDescriptor) -> Form:
        if field.enum_type is not None:
            return _enum(field.enum_type)
        if field.message_type is None:
            return _SCALARS[field.type]
        name = field.message_type.full_name
        if name == "google.protobuf.FieldMask":  # which the transcoder reads strictly, where it is text
            return Value("text", _is_text, once=False)
        if name == "google.protobuf.Timestamp":
            return Value("a time as in 2026-01-31T12:00:00Z", _is_time)
        if name.startswith("google.protobuf.") or field.message_type.GetOptions().map_entry:
            raise ContractError(f"{field.full_name}: {name} has no strict form (authz/forms.py)")
        return self.of(field.message_type)


def _enum(enum: EnumDescriptor) -> Value:
    known: Mapping[type, set[Any]] = {str: set(enum.values_by_name), int: set(enum.values_by_number)}

    def fits(value: Any) -> bool:
        return value in known.get(type(value), ())

    return Value("one of the contract's words", fits, lambda text: int(text) if _INTEGER.fullmatch(text) else text)


def _is_time(value: Any) -> bool:
    if type(value) is not str or not _TIME.fullmatch(value):  # Python's reader alone takes 1e99 for a fraction
        return False
    try:
        Timestamp().FromJsonString(value)
    except ValueError:
        return False
    return True


def _is_text(value: Any) -> bool:
    """Tells whether it is text that UTF-8 can hold: \\ud800 alone is none."""
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_base64(value: Any) -> bool:
    try:
        return type(value) is str and b64decode(value, validate=True) is not None
    except (binascii.Error, ValueError):
        return False


def _is_number(value: Any) -> bool:
    if type(value) is str:
        return _NUMBER.fullmatch(value) is not None and math.isfinite(float(value))
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _integer(least: int, most: int) -> Value:
    def fits(value: Any) -> bool:
        if type(value) is str:
            return _INTEGER.fullmatch(value) is not None and least <= int(value) <= most
        if type(value) is float:
            return value.is_integer() and least <= value <= most
        return type(value) is int and least <= value <= most

    return Value(f"a whole number from {least} to {most}", fits)


_INT32, _INT64 = _integer(-(2**31), 2**31 - 1), _integer(-(2**63), 2**63 - 1)
_UINT32, _UINT64 = _integer(0, 2**32 - 1), _integer(0, 2**64 - 1)
_NUMBERS = Value("a number", _is_number)
_SCALARS: Mapping[int, Value] = {
    FieldDescriptor.TYPE_STRING: Value("text", _is_text),
    FieldDescriptor.TYPE_BYTES: Value("base64", _is_base64),
    FieldDescriptor.TYPE_BOOL: Value(
        "true or false", lambda value: type(value) is bool, {"true": True, "false": False}.get
    ),
    FieldDescriptor.TYPE_DOUBLE: _NUMBERS,
    FieldDescriptor.TYPE_FLOAT: _NUMBERS,
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), _INT32),
    **dict.fromkeys((FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64), _INT64),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), _UINT32),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), _UINT64),
}
