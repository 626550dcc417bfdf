"""The contract as data: every RPC with its HTTP bindings and its policy, read once from the descriptor set."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.v1 import policy_pb2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

Access = Literal["public", "token", "none"]
RateClass = Literal["login", "write", "read", "stream", "upload"]

EDGE = "edge"
UNARY_DEADLINE = 5.0
STREAM_DEADLINE = 3600.0
_ACCESS: dict[int, Access] = {
    policy_pb2.ACCESS_UNSPECIFIED: "none",
    policy_pb2.ACCESS_PUBLIC: "public",
    policy_pb2.ACCESS_TOKEN: "token",
}
_RATE_CLASSES: dict[int, RateClass] = {
    policy_pb2.RATE_CLASS_LOGIN: "login",
    policy_pb2.RATE_CLASS_WRITE: "write",
    policy_pb2.RATE_CLASS_READ: "read",
    policy_pb2.RATE_CLASS_STREAM: "stream",
    policy_pb2.RATE_CLASS_UPLOAD: "upload",
}


@dataclass(frozen=True, slots=True)
class Binding:
    """One way an RPC is reached over HTTP (google.api.http)."""

    verb: str
    template: str
    body: str
    """The request field that the body fills, `*` for the whole request, or empty."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC, with the terms of its policy. See proto/common/v1/policy.proto."""

    rpc: str
    """As in the HTTP/2 path: /payment.v1.PaymentService/GetPayment."""
    server: str
    """The service that implements it, by name: payment. COMMON: each of them."""
    request_type: str
    response_type: str
    client_streaming: bool
    server_streaming: bool
    safe_to_retry: bool
    """Whether executing it twice is executing it once: its idempotency_level says so."""
    changes: bool
    """Whether it has side effects: its idempotency_level does not say that it has none."""
    bindings: tuple[Binding, ...]
    access: Access
    roles: frozenset[str]
    callers: frozenset[str]
    """The services that may call it directly; the edge among them when it can be reached from outside."""
    idempotency_key: bool
    deadline: float
    """Seconds."""
    location: str
    query_token: bool
    person_only: bool
    rate_class: RateClass

    def location_of(self, response: object) -> str:
        """Returns the Location of the resource that a call created."""
        return re.sub(r"\{(\w+)\}", lambda field: str(getattr(response, field[1])), self.location)


COMMON = "common"
"""What each service serves beside its own: common/v1/audit.proto."""


class ContractError(Exception):
    """The descriptor set breaks a rule of the house: a method has no policy, say."""


def load(path: Path) -> Mapping[str, Method]:
    """Reads the descriptor set made by scripts/generate. Returns its methods by RPC.

    Raises ContractError for a method without a policy, or one that nobody may call.
    """
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    return {
        method.rpc: method
        for file in descriptors.file
        if re.fullmatch(r"[a-z]+\.v\d+", file.package)
        for service in file.service
        for method in (_method(file.package, service.name, proto) for proto in service.method)
    }


def services(methods: Mapping[str, Method]) -> frozenset[str]:
    """Returns the services by name."""
    return frozenset(method.server for method in methods.values()) - {COMMON}


def _method(package: str, service: str, proto: descriptor_pb2.MethodDescriptorProto) -> Method:
    rpc = f"/{package}.{service}/{proto.name}"
    if not proto.options.HasExtension(policy_pb2.policy):
        raise ContractError(f"{rpc} has no (common.v1.policy): say who may call it")
    policy = proto.options.Extensions[policy_pb2.policy]
    access = _ACCESS[policy.access]
    if access == "none" and not policy.callers:
        raise ContractError(f"{rpc} can be called by nobody: its policy has neither access nor callers")
    if access != "token" and policy.roles:
        raise ContractError(f"{rpc} asks for roles, but not for a token")
    deadline = policy.deadline.seconds + policy.deadline.nanos / 1e9
    return Method(
        rpc=rpc,
        server=package.split(".", maxsplit=1)[0],
        request_type=proto.input_type.removeprefix("."),
        response_type=proto.output_type.removeprefix("."),
        client_streaming=proto.client_streaming,
        server_streaming=proto.server_streaming,
        safe_to_retry=proto.options.idempotency_level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN,
        bindings=_bindings(rpc, access, proto),
        access=access,
        roles=frozenset(policy.roles),
        callers=frozenset(policy.callers) | ({EDGE} if access != "none" else set()),
        idempotency_key=policy.idempotency_key,
        deadline=deadline or (STREAM_DEADLINE if proto.server_streaming else UNARY_DEADLINE),
        changes=proto.options.idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
        location=policy.location,
        query_token=policy.query_token,
        person_only=policy.person_only,
        rate_class=_RATE_CLASSES.get(policy.rate_class) or _rate_class(proto),
    )


def _rate_class(proto: descriptor_pb2.MethodDescriptorProto) -> RateClass:
    if proto.client_streaming:
        return "upload"
    if proto.server_streaming:
        return "stream"
    return "read" if proto.options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS else "write"


def _bindings(rpc: str, access: Access, proto: descriptor_pb2.MethodDescriptorProto) -> tuple[Binding, ...]:
    rule = proto.options.Extensions[annotations_pb2.http]
    bindings = tuple(
        Binding(verb.upper(), getattr(one, verb), one.body)
        for one in (rule, *rule.additional_bindings)
        if (verb := one.WhichOneof("pattern"))
    )
    if bindings and access == "none":
        raise ContractError(f"{rpc} has an HTTP path, but its policy admits nobody from outside")
    return bindings
