"""Many clients of one edge: each with an address of its own, and as many users as there are names."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count

import httpx
from ext_authz import external_auth_pb2 as authz

from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, headers_of
from tests.edge.contract.edge import Edge
from tests.edge.contract.samples import sample

_TLS = ssl.create_default_context()  # which takes long to make, and is not used
_ADDRESSES = (f"127.{number // 250}.{number % 250}.1" for number in count(500))


class Crowd(Backend):
    """Knows everybody: a token is the name of a user."""

    def user_of(self, request: authz.CheckRequest, method: Method) -> str:
        """Returns the user whose name is the token."""
        return headers_of(request).get("authorization", "").removeprefix("Bearer ")


class Client:
    """A client with an address of its own."""

    def __init__(self, backend: Backend, http: httpx.Client) -> None:
        self._backend = backend
        self._http = http

    def call(self, rpc: str, user: str = "", headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Calls an RPC by its first binding."""
        method = self._backend.methods[rpc]
        binding = method.bindings[0]
        one = sample(self._backend.message_type(method.request_type), binding)
        own = {"authorization": f"Bearer {user}"} if user else {}
        if one.body is not None:
            own["content-type"] = one.content_type
        return self._http.request(
            binding.verb, one.path, params=one.query, content=one.body, headers={**own, **(headers or {})}
        )

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Asks for anything."""
        return self._http.request(method, path, headers=headers)


@contextmanager
def client(edge: Edge, backend: Backend) -> Iterator[Client]:
    """Opens a client at an address that no other has."""
    transport = httpx.HTTPTransport(_TLS, local_address=next(_ADDRESSES))
    with httpx.Client(base_url=edge.url, transport=transport, timeout=15) as http:
        yield Client(backend, http)
