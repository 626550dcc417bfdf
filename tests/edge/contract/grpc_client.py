"""A gRPC client of every RPC, without its stub."""

from collections.abc import Sequence
from operator import methodcaller
from typing import Any

import grpc
from google.protobuf.message import Message

from tests.edge.contract.backend import Backend


class Channel:
    """Calls RPCs with one message, as a stream: on the wire it is the same."""

    def __init__(self, channel: grpc.Channel, backend: Backend) -> None:
        self._channel = channel
        self._backend = backend

    def call(
        self, rpc: str, metadata: Sequence[tuple[str, str | bytes]], request: Message | None = None
    ) -> list[Message]:
        """Returns the messages of the answer. Raises grpc.RpcError."""
        return list(self._open(rpc, metadata, request))

    def initial_metadata(self, rpc: str, metadata: Sequence[tuple[str, str | bytes]]) -> dict[str, str]:
        """Returns the metadata that comes before the messages of the answer. Raises grpc.RpcError."""
        call = self._open(rpc, metadata, None)
        list(call)
        return {key: str(value) for key, value in call.initial_metadata()}

    def _open(self, rpc: str, metadata: Sequence[tuple[str, str | bytes]], request: Message | None) -> Any:
        method = self._backend.methods[rpc]
        stub = self._channel.stream_stream(
            rpc,
            request_serializer=methodcaller("SerializeToString"),
            response_deserializer=self._backend.message_type(method.response_type).FromString,
        )
        request = request or self._backend.message_type(method.request_type)()
        return stub(iter([request]), metadata=tuple(metadata), timeout=10)
