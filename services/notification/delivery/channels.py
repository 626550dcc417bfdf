"""The channels that the environment switches on."""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from email.utils import parseaddr
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from services.notification.delivery.domain import EMAIL, PUSH, SMS
from services.notification.delivery.email import Contacts, Email
from services.notification.delivery.provider import Addresses, Provider
from services.notification.delivery.smtp import Connections, server
from services.notification.delivery.worker import Channel
from services.notification.webhooks.network import open_session


def _smtp_url(url: SecretStr) -> SecretStr:
    if url.get_secret_value():
        server(url.get_secret_value())
    return url


def _sender(sender: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", parseaddr(sender)[1]):
        raise ValueError("must be an address, or a name and an address in angle brackets")
    return sender


_HttpUrl = Annotated[str, Field(pattern=r"^(https?://[^/\s]+.*)?$")]


class ChannelSettings(BaseSettings):
    """How users are reached. A channel without an address is off."""

    smtp_url: Annotated[SecretStr, AfterValidator(_smtp_url)] = SecretStr("")
    """smtp://host:25 or smtps://user:password@host:465."""
    smtp_from: Annotated[str, AfterValidator(_sender)] = "Drawbridge <no-reply@drawbridge.example>"
    sms_url: _HttpUrl = ""
    sms_secret: SecretStr = SecretStr("")
    push_url: _HttpUrl = ""
    push_secret: SecretStr = SecretStr("")


@asynccontextmanager
async def open_channels(
    settings: ChannelSettings, contacts: Contacts, addresses: Addresses
) -> AsyncIterator[dict[str, Channel]]:
    """Opens the channels that are on, by name."""
    channels: dict[str, Channel] = {}
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session(public=False))
        if url := settings.smtp_url.get_secret_value():
            connections = Connections(server(url), ssl.create_default_context())
            stack.push_async_callback(connections.close)
            channels[EMAIL] = Email(connections, settings.smtp_from, contacts)
        if settings.sms_url:
            secret = settings.sms_secret.get_secret_value()
            channels[SMS] = Provider(session, settings.sms_url, secret, addresses, lambda of: of.phone_number)
        if settings.push_url:
            secret = settings.push_secret.get_secret_value()
            channels[PUSH] = Provider(session, settings.push_url, secret, addresses, lambda of: of.push_token)
        yield channels
