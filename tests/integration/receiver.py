"""A server that keeps what is posted to it, and answers as it is told."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Post:
    """A request that came."""

    path: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes


@dataclass
class Receiver:
    """What came, in order, and where it is to be sent."""

    url: str = ""
    port: int = 0
    posts: list[Post] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    answer: Answer | None = None
    """How to answer; None: 204."""

    def answer_with(self, *statuses: int, **headers: str) -> None:
        """Answers with these statuses, one after the other, and from then on with the last one."""
        left = list(statuses)

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=left.pop(0) if len(left) > 1 else left[0], headers=headers)

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keeps a request and answers."""
        self.connections.add(request.transport)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.posts.append(Post(request.path, headers, await request.read()))
        return await self.answer(request) if self.answer else web.Response(status=204)


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Receiver]:
    """Runs a receiver on this machine, on a free port unless one is named; with `tls`, at https://localhost."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    [address] = runner.addresses
    receiver.port = address[1]
    receiver.url = f"https://localhost:{receiver.port}" if tls else f"http://127.0.0.1:{receiver.port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def hanging(release: asyncio.Event) -> Answer:
    """Answers when it is released."""

    async def answer(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response(status=204)

    return answer
