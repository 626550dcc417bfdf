"""SMS and push messages, by a provider that takes them by HTTP."""

from collections.abc import Callable
from typing import Protocol

import aiohttp

from services.notification.delivery.domain import Delivery, Refused, TryAgain
from services.notification.domain import Preferences

_NOT_OF_THE_MESSAGE = {401, 403, 404, 408, 409, 425, 429}
"""What another attempt may mend: 401, 403 and 404 say that our secret or our URL is not the right one."""


class Addresses(Protocol):
    """Who knows what users prefer."""

    async def get(self, user_id: str) -> Preferences:
        """Returns a user's preferences."""


class Provider:
    """The channel: POSTs {"id", "to", "text"}. The provider tells a repetition by Idempotency-Key."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        secret: str,
        addresses: Addresses,
        address: Callable[[Preferences], str],
    ) -> None:
        self._session = session
        self._url = url
        self._secret = secret
        self._addresses = addresses
        self._address = address

    async def send(self, delivery: Delivery) -> int:
        """Hands a message over to the provider."""
        to = self._address(await self._addresses.get(delivery.user_id))
        if not to:
            raise Refused("the user has no address for this channel any more")
        headers = {"Authorization": f"Bearer {self._secret}", "Idempotency-Key": delivery.id}
        body = {"id": delivery.id, "to": to, "text": delivery.body}
        async with self._session.post(self._url, json=body, headers=headers, allow_redirects=False) as response:
            status, retry_after = response.status, response.headers.get("Retry-After", "")
        if 200 <= status < 300:
            return status
        said = f"the provider answered {status}"
        if 400 <= status < 500 and status not in _NOT_OF_THE_MESSAGE:
            raise Refused(said, status)
        raise TryAgain(said, status, float(retry_after) if retry_after.isdecimal() else 0.0)
