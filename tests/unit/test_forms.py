"""The strict forms that authz makes of the contract's messages."""

import pytest
from google.protobuf import descriptor_pb2, struct_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from authz.forms import Forms, Problems
from services.runtime.contract import ContractError


def _pool(file: descriptor_pb2.FileDescriptorProto) -> DescriptorPool:
    pool = DescriptorPool()
    struct = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(struct)
    pool.Add(struct)
    pool.Add(file)
    return pool


def test_a_type_without_a_strict_form_is_told_at_the_start() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="x", syntax="proto3")
    file.dependency.append("google/protobuf/struct.proto")
    field = file.message_type.add(name="M").field.add(name="f", number=1, type_name=".google.protobuf.Struct")
    field.type, field.label = field.TYPE_MESSAGE, field.LABEL_OPTIONAL
    with pytest.raises(ContractError, match="Struct"):
        Forms().of(_pool(file).FindMessageTypeByName("x.M"))


def test_a_message_that_holds_itself_and_a_oneof_have_a_form() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="y.proto", package="y", syntax="proto3")
    message = file.message_type.add(name="M")
    message.oneof_decl.add(name="either")
    for number, (name, kind) in enumerate({"m": 11, "a_b": 9, "number": 1, "data": 12}.items(), 1):
        field = message.field.add(name=name, number=number, type=kind, label=1)
        if name in ("a_b", "number"):
            field.oneof_index = 0
    message.field[0].type_name = ".y.M"
    form = Forms().of(_pool(file).FindMessageTypeByName("y.M"))

    def problems(value: object) -> list[str]:
        found = Problems()
        form.check(value, "", found)
        return [f"{one.field} {one.description}" for one in found]

    assert problems({"m": {"m": {"aB": "x"}}, "number": 1.5, "data": "AAE="}) == []
    assert problems({"m": {"m": {"c": 1}}}) == ["m.m.c is not known"]
    assert problems({"a_b": "x", "number": 1})[0] == "aB cannot be given beside number"
    assert problems({"number": "one"}) == ["number must be a number"]
    assert problems({"number": float("inf")}) == ["number must be a number"]
    assert problems({"number": "-0.5e-3"}) == []
    assert problems({"data": "A"}) == ["data must be base64"]
