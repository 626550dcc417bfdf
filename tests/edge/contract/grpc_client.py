"""A gRPC client of every RPC, without its stub."""

from collections.abc import Sequence
from operator import methodcaller

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
        method = self._backend.methods[rpc]
        stub = self._channel.stream_stream(
            rpc,
            request_serializer=methodcaller("SerializeToString"),
            response_deserializer=self._backend.message_type(method.response_type).FromString,
        )
        request = request or self._backend.message_type(method.request_type)()
        return list(stub(iter([request]), metadata=tuple(metadata), timeout=10))
