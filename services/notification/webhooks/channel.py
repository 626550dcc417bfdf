"""Posts deliveries to webhooks."""

import asyncio
import os
import time
from contextlib import suppress

import aiohttp
import structlog
from yarl import URL

from services.notification.delivery.domain import Delivery, Refused, TryAgain
from services.notification.webhooks import signature
from services.notification.webhooks.domain import InvalidWebhookUrl, require_url
from services.notification.webhooks.network import AddressForbidden, AnswerTooLong
from services.notification.webhooks.store import Webhooks

_GONE = 410
_SUCCESSES = range(200, 300)
_REDIRECTS = range(300, 400)
_ASK_TO_WAIT = (429, 503)
_READ_BYTES = 4096
_READ_SECONDS = 0.2

_log = structlog.get_logger()


class WebhookChannel:
    """Signs and posts."""

    def __init__(self, webhooks: Webhooks, session: aiohttp.ClientSession, *, public: bool) -> None:
        self._webhooks = webhooks
        self._session = session
        self._public = public

    async def send(self, delivery: Delivery) -> int:
        """Posts a delivery and returns the status of the answer, which is 2xx. Raises Refused or TryAgain."""
        target = await self._webhooks.target(delivery.webhook_id or "")
        if target is None:
            raise Refused("the webhook is disabled")
        try:
            require_url(target.url, public=self._public)  # it was let pass, but maybe under other settings
        except InvalidWebhookUrl as error:
            raise Refused(str(error)) from error
        body = delivery.body.encode()
        headers = {
            "content-type": "application/json",
            **signature.headers(delivery.id, int(time.time()), body, target.secrets),
        }
        status, retry_after = await self._post(target.url, body, headers)
        if status in _SUCCESSES:
            return status
        if status == _GONE:
            _log.warning("webhook disabled: 410 Gone", webhook=delivery.webhook_id)
            await self._webhooks.gone(delivery.webhook_id or "", target.url)
            raise Refused("the answer was 410 Gone: the webhook is disabled now", status)
        kind = ": redirects are not followed" if status in _REDIRECTS else ""
        after = float(retry_after) if status in _ASK_TO_WAIT and retry_after.isdecimal() else 0.0
        raise TryAgain(f"the answer was {status}{kind}", status, after)

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        """Returns the status and the Retry-After of the answer. Raises TryAgain where none comes."""
        try:
            async with self._session.post(
                URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as response:
                # A short answer that is read to its end leaves the connection open for the next request.
                with suppress(asyncio.IncompleteReadError, TimeoutError, aiohttp.ClientError):
                    async with asyncio.timeout(_READ_SECONDS):
                        await response.content.readexactly(_READ_BYTES)
                return response.status, response.headers.get("retry-after", "")
        except aiohttp.ClientError as error:
            raise TryAgain(_why(error)) from error


def _why(error: aiohttp.ClientError) -> str:
    """Says what went wrong without telling more of the network than the owner of the server needs."""
    why = "the connection was lost before an answer came"
    match error:
        case aiohttp.ClientConnectorCertificateError():
            why = f"the certificate is not valid: {getattr(error.certificate_error, 'verify_message', 'unknown')}"
        case aiohttp.ClientSSLError():
            why = "TLS could not be agreed on"
        case aiohttp.ClientConnectorDNSError() | aiohttp.ClientConnectorError(os_error=AddressForbidden()):
            why = "the host name has no public address"  # whether it has another one is nobody's business
        case aiohttp.ClientConnectorError(errno=int(number)) if number:
            why = f"no connection: {os.strerror(number)}"
        case aiohttp.ClientConnectorError():
            why = "the connection was lost before TLS was agreed on"
        case AnswerTooLong():
            why = "the answer was too long"
        case aiohttp.ClientResponseError():
            why = "the answer was not HTTP"
    return why
