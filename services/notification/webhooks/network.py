"""The way out to users' servers: no proxy, no cookie, no redirect by itself, and to nobody but public hosts.

An address is judged where its socket is made, so what was judged is what is connected to: a name that is resolved
to something else the next time (DNS rebinding) gains nothing.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from services.notification.webhooks.domain import is_public

_RESOLVERS = 256
"""Threads, which only wait: more than there are attempts at once, so that names whose servers do not answer take none
from others. Such a name holds one even when its attempt is over; in Kubernetes for 2 s at the most (dnsConfig).
"""
_ANSWER_BYTES = 64 * 1024


class AnswerTooLong(aiohttp.ClientError):
    """A server says more than anybody wants to hear."""


class AddressForbidden(OSError):
    """A host is not on the public internet."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "not public")


class Resolver(AbstractResolver):
    """Asks the system, in threads of its own."""

    def __init__(self, *, public: bool) -> None:
        """With public=True names are asked for as they are, and in no search domain of this machine."""
        self._root = "." if public else ""
        self._threads = ThreadPoolExecutor(_RESOLVERS, "resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns the addresses of a host. Raises OSError."""
        name = host + self._root
        ask = partial(socket.getaddrinfo, name, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [answer(host, port, str(address[0]), family) for family, _, _, _, address in found]

    async def close(self) -> None:
        """Lets go of the threads, without waiting for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def answer(host: str, port: int, address: str, family: int) -> ResolveResult:
    """Returns what a resolver found, as aiohttp wants it."""
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST
    )


class _Frugal(ResponseHandler):
    """A connection that is broken off when an answer gets too long: aiohttp reads 1xx answers without end."""

    _left = _ANSWER_BYTES

    def set_response_params(self, **parameters: Any) -> None:
        """Begins a request."""
        self._left = _ANSWER_BYTES
        super().set_response_params(**parameters)

    def data_received(self, data: bytes) -> None:
        """Reads as much as is left."""
        taken = data[: self._left]
        self._left -= len(taken)
        super().data_received(taken)
        if len(taken) < len(data):
            self.set_exception(AnswerTooLong())
            if self.transport is not None:
                self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        connection: type[ResponseHandler] = _Frugal
        self._factory = partial(connection, loop=self._loop)


def _public_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """Makes the socket for an address. Raises AddressForbidden."""
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise AddressForbidden
    return socket.socket(family, kind, protocol)


@asynccontextmanager
async def open_session(
    *, public: bool, resolver: AbstractResolver | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """Opens connections to users' servers, which are kept open for a while; with public=False to any host.

    Certificates are verified by the system's authorities (SSL_CERT_FILE names others).
    """
    resolver = resolver or Resolver(public=public)
    connector = _Connector(
        ssl=ssl.create_default_context(),
        resolver=resolver,
        socket_factory=_public_socket if public else None,
        limit=0,  # the worker knows how many
    )
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "Drawbridge"},
            skip_auto_headers=["Accept-Encoding"],
            auto_decompress=False,
            trust_env=False,
        ) as session:
            yield session
    finally:
        await resolver.close()
