"""HTTP/1.1 as bytes on a socket: what no well-behaved client would send, and all that comes back."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.edge.contract.edge import AUTHORIZED

CREDENTIAL = f"Authorization: {AUTHORIZED['authorization']}\r\n".encode()
"""The header line of a user."""
_PATIENCE = 20.0


@dataclass
class Exchange:
    """What came back on a connection, and whether the edge closed it."""

    answers: list[httpx.Response] = field(default_factory=list)
    rest: bytes = b""
    """What is no whole answer."""
    closed: bool = False

    def statuses(self) -> list[int]:
        """Returns the status of each answer, in order."""
        return [answer.status_code for answer in self.answers]


async def exchange(port: int, data: bytes, answers: int) -> Exchange:
    """Sends data, and reads until so many answers have come or the edge closes the connection.

    After some 20 s it gives up: then there are fewer answers, and the connection is not closed.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    result = Exchange()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await _converse(reader, writer, data, result, answers)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return result


def exchange_all(port: int, every: Iterable[tuple[bytes, int]], at_once: int = 100) -> list[Exchange]:
    """Has each data on a connection of its own, many at once."""

    async def run() -> list[Exchange]:
        turns = asyncio.Semaphore(at_once)

        async def one(data: bytes, answers: int) -> Exchange:
            async with turns:
                return await exchange(port, data, answers)

        return await asyncio.gather(*(one(*each) for each in every))

    return asyncio.run(run())


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, result: Exchange, answers: int
) -> None:
    with suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
        while len(result.answers) < answers:
            received = await reader.read(65536)
            if not received:
                break
            result.rest += received
            _take_answers(result)
            if result.answers and result.answers[-1].headers.get("connection") == "close" and not writer.is_closing():
                writer.write_eof()  # or the edge would wait a while for more of what it does not want
        else:
            return
    result.closed = True


def _take_answers(result: Exchange) -> None:
    while (whole := result.rest.partition(b"\r\n\r\n"))[1]:
        head, _, rest = whole
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = httpx.Headers([(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)])
        code = int(status.split()[1])
        length = 0 if code < 200 else int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        if code >= 200:
            result.answers.append(httpx.Response(code, headers=headers, content=rest[:length]))
        result.rest = rest[length:]
