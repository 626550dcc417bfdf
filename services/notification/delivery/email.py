"""E-mail, by SMTP."""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib

from services.notification.delivery.domain import Delivery, Refused, TryAgain
from services.notification.domain import Contact

SEND_SECONDS = 8.0
QUIT_SECONDS = 1.0
"""Less than is left of the time for an attempt: a server that took a message, and is slow to say goodbye, has it."""
_PERMANENT = 500
_TEXT = """\
Hello {name},

{sentence}

Payment {payment_id}
"""


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


class Contacts(Protocol):
    """Who knows where users can be written to."""

    async def contact(self, user_id: str) -> Contact | None:
        """Returns where an active user can be written to; None where there is no such user."""


def server(url: str) -> Server:
    """Reads smtp://host:25 or smtps://user:password@host:465. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("must be smtp:// or smtps://, a host, and no path")
    tls, credentials = parts.scheme == "smtps", parts.username is not None
    port = parts.port or (465 if tls else 587 if credentials else 25)
    if not credentials:
        return Server(parts.hostname, port, tls)
    return Server(parts.hostname, port, tls, unquote(parts.username or ""), unquote(parts.password or ""))


class Email:
    """The channel."""

    def __init__(self, server: Server, sender: str, contacts: Contacts, tls: ssl.SSLContext) -> None:
        """`sender` is what stands in From: Drawbridge <no-reply@drawbridge.example>."""
        self._server = server
        self._sender = sender
        self._contacts = contacts
        self._tls = tls

    async def send(self, delivery: Delivery) -> int:
        """Hands an e-mail over to the server."""
        contact = await self._contacts.contact(delivery.user_id)
        if contact is None:
            raise Refused("there is no such user, or it is not active")
        message = write(delivery, contact, self._sender, datetime.now(UTC))
        try:
            await self._hand_over(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _judged(error.recipients[0]) from error
        except (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError) as error:
            raise _judged(error) from error
        except aiosmtplib.SMTPNotSupported as error:
            if self._server.username is None:
                raise Refused("the address needs SMTPUTF8, which the server does not have") from error
            raise TryAgain("the server does not offer TLS or a way to log in") from error
        except aiosmtplib.SMTPResponseException as error:  # it is not about this e-mail, but about us
            raise TryAgain(_said(error)) from error
        return 0

    async def _hand_over(self, message: EmailMessage) -> None:
        there = self._server
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
            async with asyncio.timeout(SEND_SECONDS):
                await client.connect()
                await client.send_message(message)
            with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(QUIT_SECONDS):
                    await client.quit()
        finally:
            client.close()


def write(delivery: Delivery, contact: Contact, sender: str, now: datetime) -> EmailMessage:
    """Writes an e-mail. A delivery that is sent again has the same Message-ID. Raises Refused."""
    message = EmailMessage()
    message["Message-ID"] = f"<{delivery.id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    message["Date"] = format_datetime(now)
    message["From"] = sender
    try:
        message["To"] = Address(contact.display_name, addr_spec=contact.email)
    except ValueError as error:  # its text has the address
        raise Refused("the address cannot be written into an e-mail") from error
    message["Subject"] = delivery.body
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers by machines
    text = _TEXT.format(name=contact.display_name, sentence=delivery.body, payment_id=delivery.payment_id)
    message.set_content(text, cte="quoted-printable")
    return message


def _judged(error: aiosmtplib.SMTPResponseException) -> Refused | TryAgain:
    return Refused(_said(error)) if error.code >= _PERMANENT else TryAgain(_said(error))


def _said(error: aiosmtplib.SMTPResponseException) -> str:
    """Returns the codes of an answer. Its text may repeat the address."""
    first = error.message.split(maxsplit=1)[:1]
    enhanced = [code for code in first if code.replace(".", "").isdigit()]
    return " ".join(["the server answered", str(error.code), *enhanced])
