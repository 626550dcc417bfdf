"""An SMTP server that keeps what it takes, and answers as it is told."""

import asyncio
import base64
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage


@dataclass
class Mail:
    """An e-mail that was taken."""

    recipient: str
    """Of the envelope: RCPT TO."""
    message: EmailMessage
    encrypted: bool
    login: str
    """user:password; empty where nobody logged in."""


@dataclass
class Mailbox:
    """What came, in order."""

    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    """STARTTLS is offered with this."""
    answers: dict[str, list[str]] = field(default_factory=dict)
    """What is answered to a command instead (RCPT: "550 5.1.1 no"), one after the other. MESSAGE: after DATA."""
    commands: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids of the deliveries that came."""
        return [str(mail.message["Message-ID"]).strip("<>").split("@")[0] for mail in self.mails]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speaks SMTP."""
        try:
            await _Session(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client hung up
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


class _Session:
    def __init__(self, box: Mailbox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._box = box
        self._reader = reader
        self._writer = writer
        self._encrypted = False
        self._recipient = ""
        self._login = ""

    async def run(self) -> None:
        await self._answer("220 mailbox")
        while line := await self._line():
            command = line.split()[0].upper()
            self._box.commands.append(command)
            if self._box.answers.get(command):
                await self._answer(self._box.answers[command].pop(0))
            elif command == "QUIT":
                await self._answer("221 bye")
                break
            else:
                await self._do(command, line)

    async def _do(self, command: str, line: str) -> None:
        if command == "EHLO":
            offered = ["STARTTLS"] if self._box.tls and not self._encrypted else []
            await self._answer(*(f"250-{one}" for one in ("mailbox", "AUTH PLAIN", *offered)), "250 SMTPUTF8")
        elif command == "STARTTLS" and self._box.tls:
            await self._answer("220 go on")
            await self._writer.start_tls(self._box.tls)
            self._encrypted = True
        elif command == "AUTH":
            _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
            self._login = f"{user}:{password}"
            await self._answer("235 welcome")
        elif command == "RCPT":
            self._recipient = line.partition("<")[2].partition(">")[0]
            await self._answer("250 ok")
        elif command == "DATA":
            await self._answer("354 go on")
            await self._answer(self._take(await self._reader.readuntil(b"\r\n.\r\n")))
        else:
            await self._answer("250 ok")

    def _take(self, data: bytes) -> str:
        if self._box.answers.get("MESSAGE"):
            return self._box.answers["MESSAGE"].pop(0)
        message = email.message_from_bytes(data[:-5].replace(b"\r\n..", b"\r\n."), policy=email.policy.default)
        self._box.mails.append(Mail(self._recipient, message, self._encrypted, self._login))
        return "250 taken"

    async def _line(self) -> str:
        return (await self._reader.readline()).decode().rstrip("\r\n")

    async def _answer(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())
        await self._writer.drain()


@asynccontextmanager
async def mailbox(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Mailbox]:
    """Runs a server on this machine, on a free port unless one is named."""
    box = Mailbox(tls=tls)
    server = await asyncio.start_server(box.serve, "127.0.0.1", port)
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        yield box
