"""E-mail, by SMTP."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Protocol

import aiosmtplib

from services.notification.delivery.domain import RESET_REQUESTED, Delivery, PasswordReset, Refused, TryAgain
from services.notification.delivery.smtp import Connections

_PERMANENT = 500
_ADDRESS = re.compile(r"(?!.*=\?)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+")
"""Without what the email package takes for an encoded word (RFC 2047): some versions decode a line break in one."""
_TEXT = """\
Hello,

{sentence}
"""
_REFERENCE = """
Payment {payment_id}
"""


class Contacts(Protocol):
    """Who knows where users can be written to."""

    async def email(self, user_id: str) -> str | None:
        """Returns the address of an active user; None where there is no such user."""

    async def password_reset(self, reset_id: str) -> PasswordReset | None:
        """Returns a reset; None where it does not wait for its code any more."""


class Email:
    """The channel."""

    def __init__(self, connections: Connections, sender: str, contacts: Contacts) -> None:
        """`sender` is what stands in From: Drawbridge <no-reply@drawbridge.example>."""
        self._connections = connections
        self._sender = sender
        self._contacts = contacts

    async def send(self, delivery: Delivery) -> int:
        """Hands an e-mail over to the server."""
        address, sentence = await self._filled_in(delivery)
        message = write(replace(delivery, body=sentence), address, self._sender, datetime.now(UTC))
        try:
            await self._connections.send(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _judged(error.recipients[0]) from error
        except (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError) as error:
            raise _judged(error) from error
        except aiosmtplib.SMTPNotSupported as error:
            raise TryAgain("the server does not offer what is needed: TLS, a way to log in, or SMTPUTF8") from error
        except aiosmtplib.SMTPResponseException as error:  # it is not about this e-mail, but about us
            raise TryAgain(_said(error)) from error
        return 0

    async def _filled_in(self, delivery: Delivery) -> tuple[str, str]:
        """Returns the address and the sentence, which are not stored where it has a code. Raises Refused."""
        if delivery.event_type == RESET_REQUESTED:
            reset = await self._contacts.password_reset(delivery.event_id.removeprefix("password."))
            if reset is None:
                raise Refused("the reset was used or replaced, or has expired")
            return reset.email, reset.sentence
        address = await self._contacts.email(delivery.user_id)
        if address is None:
            raise Refused("there is no such user, or it is not active")
        return address, delivery.body


def write(delivery: Delivery, address: str, sender: str, now: datetime) -> EmailMessage:
    """Writes an e-mail, in which no word is the user's own: addresses are not verified, and mail from us is believed.

    A delivery that is sent again has the same Message-ID. Raises Refused.
    """
    message = EmailMessage()
    message["Message-ID"] = f"<{delivery.id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    message["Date"] = format_datetime(now)
    message["From"] = sender
    try:
        if not _ADDRESS.fullmatch(address):
            raise ValueError(address)
        message["To"] = Address(addr_spec=address)
    except ValueError as error:  # its text has the address
        raise Refused("the address cannot be written into an e-mail") from error
    message["Subject"] = delivery.event_type.replace(".", " ").replace("_", " ").capitalize()  # says no amount
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers by machines
    text = _TEXT.format(sentence=delivery.body)
    if delivery.payment_id:
        text += _REFERENCE.format(payment_id=delivery.payment_id)
    message.set_content(text, cte="quoted-printable")
    return message


def _judged(error: aiosmtplib.SMTPResponseException) -> Refused | TryAgain:
    return Refused(_said(error)) if error.code >= _PERMANENT else TryAgain(_said(error))


def _said(error: aiosmtplib.SMTPResponseException) -> str:
    """Returns the codes of an answer. Its text may repeat the address."""
    first = error.message.split(maxsplit=1)[:1]
    enhanced = [code for code in first if code.replace(".", "").isdigit()]
    return " ".join(["the server answered", str(error.code), *enhanced])
