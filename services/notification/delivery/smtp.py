"""Connections to an SMTP server, used again while there is something to send."""

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from urllib.parse import unquote

import aiosmtplib

SEND_SECONDS = 9.0
"""Less than an attempt may take: a message that was taken must not count as one that was not."""
IDLE_SECONDS = 1.0
QUIT_SECONDS = 1.0
_URL = re.compile(r"(smtps?)://(?:([^:@/\s]+):([^@/\s]*)@)?(\[[0-9A-Fa-f:.]+\]|[^:@/\[\]\s]+)(?::([0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Server:
    """Where e-mail is handed over."""

    host: str
    port: int
    tls: bool
    """From the first byte. Otherwise TLS begins when the server offers it."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    """With credentials nothing is sent without TLS."""


def server(url: str) -> Server:
    """Reads smtp://host:25 or smtps://user:password@host:465. Raises ValueError, which does not repeat it."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("must be smtp://HOST:PORT or smtps://USER:PASSWORD@HOST:PORT")
    scheme, username, password, host, port = match.groups()
    tls, credentials = scheme == "smtps", username is not None
    return Server(
        host.strip("[]"),
        int(port or (465 if tls else 587 if credentials else 25)),
        tls,
        unquote(username) if credentials else None,
        unquote(password) if credentials else None,
    )


class Connections:
    """Takes as many connections as there are messages at once."""

    def __init__(self, there: Server, tls: ssl.SSLContext) -> None:
        self._there = there
        self._tls = tls
        self._idle: dict[aiosmtplib.SMTP, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, message: EmailMessage) -> None:
        """Hands a message over. Raises what aiosmtplib does, and TimeoutError."""
        async with asyncio.timeout(SEND_SECONDS):
            client = await self._connected()
            try:
                await client.send_message(message)
            except BaseException:
                client.close()
                raise
        self._idle[client] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._retire, client)

    async def _connected(self) -> aiosmtplib.SMTP:
        while self._idle:
            client, timer = self._idle.popitem()
            timer.cancel()
            try:
                await client.rset()
            except (aiosmtplib.SMTPException, OSError):  # the server has hung up
                client.close()
            except BaseException:
                client.close()
                raise
            else:
                return client
        there = self._there
        client = aiosmtplib.SMTP(
            hostname=there.host,
            port=there.port,
            username=there.username,
            password=there.password,
            use_tls=there.tls,
            start_tls=None if there.tls or there.username is None else True,
            tls_context=self._tls,
            timeout=SEND_SECONDS,
        )
        try:
            await client.connect()
        except BaseException:
            client.close()
            raise
        return client

    def _retire(self, client: aiosmtplib.SMTP) -> None:
        del self._idle[client]
        task = asyncio.create_task(_quit(client))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes them all."""
        for client, timer in list(self._idle.items()):
            timer.cancel()
            self._retire(client)
        await asyncio.gather(*self._closing)


async def _quit(client: aiosmtplib.SMTP) -> None:
    with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
        async with asyncio.timeout(QUIT_SECONDS):
            await client.quit()
    client.close()
