"""Stands in for all services and for authz: records what the edge sends, answers with what a test wants."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

import grpc
from ext_authz import external_auth_pb2 as authz
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from services.runtime.contract import Method
from services.runtime.server import OPTIONS

TOKEN = "a-token-that-is-good"
USER = "usr_1"
DENIAL = (
    '{"code":16,"message":"An access token is needed.","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo",'
    '"reason":"ACCESS_TOKEN_MISSING","domain":"drawbridge"}]}'
)
_CHECK = "/envoy.service.auth.v3.Authorization/Check"

Answer = Callable[[grpc.ServicerContext], Iterable[Message]]


@dataclass(frozen=True)
class Call:
    """One RPC as it came in."""

    rpc: str
    messages: list[Message]
    metadata: list[tuple[str, str | bytes]]
    seconds_left: float | None

    def values(self, name: str) -> list[str | bytes]:
        """Returns all values of a header."""
        return [value for key, value in self.metadata if key == name]


class Backend(grpc.GenericRpcHandler):
    """Implements every RPC of the contract, and authz, by recording the call and answering with an empty message."""

    def __init__(self, contract: Path, methods: Mapping[str, Method]) -> None:
        self.methods = methods
        self.calls: list[Call] = []
        self.checks: list[authz.CheckRequest] = []
        self.check_traces: list[str] = []
        self._answers: dict[str, Answer] = {}
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(contract.read_bytes()).file:
            pool.Add(file)
        names = {name for method in methods.values() for name in (method.request_type, method.response_type)}
        # Made here, once: protobuf crashes where two threads make a class at the same time.
        self._types = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}

    def message_type(self, name: str) -> type[Message]:
        """Returns the class of a request or a response."""
        return self._types[name]

    def message(self, name: str, **fields: object) -> Message:
        """Returns a request or a response."""
        return self.message_type(name)(**fields)

    @contextmanager
    def answering(self, rpc: str, answer: Answer) -> Iterator[None]:
        """Answers an RPC this way for a while."""
        self._answers[rpc] = answer
        try:
            yield
        finally:
            del self._answers[rpc]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Returns the handler of an RPC. On the wire a unary call is a stream of one message."""
        rpc = handler_call_details.method
        if rpc == _CHECK:
            return grpc.unary_unary_rpc_method_handler(
                self._check,
                request_deserializer=authz.CheckRequest.FromString,
                response_serializer=authz.CheckResponse.SerializeToString,
            )
        method = self.methods[rpc]

        def handle(requests: Iterator[Message], context: grpc.ServicerContext) -> Iterator[Message]:
            messages = list(requests)
            if not messages:  # the edge opens the call before it has read the body, and gives it up when that is bad
                return
            metadata = [(str(key), value) for key, value in context.invocation_metadata()]
            self.calls.append(Call(rpc, messages, metadata, context.time_remaining()))
            answer = self._answers.get(rpc)
            yield from answer(context) if answer else [self.message(method.response_type)]

        return grpc.stream_stream_rpc_method_handler(
            handle,
            request_deserializer=self.message_type(method.request_type).FromString,
            response_serializer=methodcaller("SerializeToString"),
        )

    def user_of(self, request: authz.CheckRequest, method: Method) -> str:
        """Returns whose token a request has, or nothing."""
        in_query = method.query_token and f"access_token={TOKEN}" in request.attributes.request.http.path
        return USER if in_query or headers_of(request).get("authorization") == f"Bearer {TOKEN}" else ""

    def _check(self, request: authz.CheckRequest, context: grpc.ServicerContext) -> authz.CheckResponse:
        self.checks.append(request)
        self.check_traces += [str(value) for key, value in context.invocation_metadata() if key == "traceparent"]
        method = self.methods[request.attributes.context_extensions["rpc"]]
        user = self.user_of(request, method)
        if method.access == "token" and not user:
            is_grpc = headers_of(request).get("content-type", "").startswith("application/grpc")
            return _denied("An access token is needed." if is_grpc else DENIAL)
        identity = {"x-user-id": user, "x-user-roles": "customer"} if user else {}
        return _granted(identity | {"x-user-rpc": method.rpc}, ["access_token"] if method.query_token else [])


def headers_of(request: authz.CheckRequest) -> dict[str, str]:
    """Returns the headers that authz is shown."""
    return {one.key: one.raw_value.decode() for one in request.attributes.request.http.header_map.headers}


def _denied(body: str) -> authz.CheckResponse:
    denied = authz.DeniedHttpResponse(
        status=authz.HttpStatus(code=401),
        headers=_options(
            {"www-authenticate": "Bearer", **({"content-type": "application/json"} if body == DENIAL else {})}
        ),
        body=body,
    )
    response = authz.CheckResponse(denied_response=denied)
    response.status.code = grpc.StatusCode.UNAUTHENTICATED.value[0]
    return response


def _granted(headers: Mapping[str, str], query_parameters_to_remove: Iterable[str]) -> authz.CheckResponse:
    granted = authz.OkHttpResponse(
        headers=_options(headers),
        headers_to_remove=["authorization"],
        query_parameters_to_remove=query_parameters_to_remove,
    )
    return authz.CheckResponse(ok_response=granted)


def _options(headers: Mapping[str, str]) -> Iterable[authz.HeaderValueOption]:
    return [authz.HeaderValueOption(header=authz.HeaderValue(key=key, value=value)) for key, value in headers.items()]


@contextmanager
def serving(backend: Backend, certificates: Path, ports: Mapping[str, int], workers: int = 16) -> Iterator[None]:
    """Serves every service on a port of its own, with its own certificate, to peers of the mesh only."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=workers), handlers=[backend], options=OPTIONS)
    for service, port in ports.items():
        pair = ((certificates / f"{service}.key").read_bytes(), (certificates / f"{service}.pem").read_bytes())
        credentials = grpc.ssl_server_credentials([pair], (certificates / "ca.pem").read_bytes(), True)
        server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield
    finally:
        server.stop(grace=None).wait()
