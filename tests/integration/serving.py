"""Servicers as in production: behind every interceptor, over mutual TLS; and the edge that calls them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from services.runtime import contract, server
from services.runtime.contract import Method
from services.runtime.interceptors import Layer
from services.runtime.server import Register
from services.runtime.status import DETAILS
from services.runtime.tls import Identity
from services.runtime.trail import Trail
from services.runtime.writing import WRITE_SECONDS

CONTRACT = Path(__file__).parents[2] / "gen/contract.binpb"
METHODS = contract.load(CONTRACT)


def identity(certificates: Path, name: str) -> Identity:
    """The mesh identity of a process."""
    return Identity(certificates / f"{name}.pem", certificates / f"{name}.key", certificates / "ca.pem")


@asynccontextmanager
async def serving(
    register: Sequence[Register],
    certificates: Path,
    name: str,
    idempotency: Layer | None = None,
    methods: Mapping[str, Method] = METHODS,
    write_seconds: float = WRITE_SECONDS,
    trail: Trail | None = None,
) -> AsyncIterator[int]:
    """Serves on a free port, which it yields, with the certificate of the named process."""
    built = server.build(methods, register, idempotency, write_seconds=write_seconds, trail=trail)
    port = built.add_secure_port("127.0.0.1:0", identity(certificates, name).server())
    await built.start()
    try:
        yield port
    finally:
        await built.stop(None)


class As:
    """A channel as a peer uses it: `edge` on behalf of a user, with the RPC granted, unless told otherwise."""

    def __init__(
        self, port: int, certificates: Path, server_name: str, peer: str = "edge", *options: tuple[str, int]
    ) -> None:
        self._arguments = port, certificates, server_name, peer
        credentials = identity(certificates, peer).channel()
        named = ("grpc.ssl_target_name_override", server_name)
        self._channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=(named, *options))

    def another(self, *options: tuple[str, int]) -> "As":
        """Another channel to the same server, with options of gRPC's."""
        return As(*self._arguments, *options)

    def user(self, user_id: str = "", *roles: str, **metadata: str) -> grpc.aio.Channel:
        """A channel for stubs: metadata names are given with underscores (idempotency_key="k")."""
        given = [
            ("x-user-id", user_id),
            ("x-user-roles", ",".join(roles)),
            *((name.replace("_", "-"), value) for name, value in metadata.items()),
        ]
        return cast(grpc.aio.Channel, _Granted(self._channel, given))

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()


class _Granted:
    def __init__(self, channel: grpc.aio.Channel, metadata: list[tuple[str, str]]) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, kind: str) -> Callable[..., Callable[[Any], Any]]:
        def multicallable(path: str, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
            call = getattr(self._channel, kind)(path, *args, **kwargs)
            granted = dict([("x-user-rpc", path), *self._metadata])
            return lambda request: call(request, metadata=tuple(granted.items()), timeout=30)

        return multicallable


def reason(error: grpc.aio.AioRpcError) -> str:
    """The ErrorInfo.reason of a failed call."""
    return str(detail(error, error_details_pb2.ErrorInfo()).reason)


def detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    """A detail of a failed call, empty where it has none of this kind."""
    status = status_pb2.Status.FromString(cast(bytes, trailers(error).get(DETAILS, b"")))
    for one in status.details:
        if cast(AnyMessage, one).Unpack(kind):
            return kind
    return kind


def trailers(error: grpc.aio.AioRpcError) -> dict[str, str | bytes]:
    """The trailing metadata of a failed call."""
    return dict(error.trailing_metadata() or ())
