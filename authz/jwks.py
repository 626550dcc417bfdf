"""The keys of an issuer: a JSON Web Key Set (RFC 7517), fetched and kept fresh in the background."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus

import aiohttp
import structlog

from authz import jwk
from authz.jwk import Key
from authz.strict import json_object
from services.runtime.errors import Unavailable
from services.runtime.worker import repeat

REFRESH_SECONDS = 60.0
COOLDOWN_SECONDS = 10.0
"""How long after a fetch for an unknown key id the next unknown one may cause another."""
PATIENCE_SECONDS = 0.5
"""How long a request waits for such a fetch: less than the edge waits for authz."""
FETCH_SECONDS = 5.0
LARGEST_SET = 64 * 1024

_NO_KEYS = ("ses_", "key_", "usr_")  # but sessions, API keys and users

PublicKeys = Mapping[str, Key]

_log = structlog.get_logger()


class KeysUnavailable(Unavailable):
    """The issuer's keys have not been fetched yet."""

    message = "Access tokens cannot be checked yet."


class BadKeySet(Exception):
    """What was fetched is no key set to trust. The keys there are stay."""


class Keys:
    """An issuer's keys for some algorithms. Old ones are kept while new ones cannot be had."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        algorithms: Collection[str] = ("ES256",),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._algorithms = algorithms
        self._clock = clock
        self.current: PublicKeys = {}
        """By key id. A new mapping whenever they change."""
        self._dropped: set[str] = set()
        self._wake = asyncio.Event()
        self._wanted: asyncio.Future[None] | None = None
        self._wanted_at = float("-inf")

    async def run(self) -> None:
        """Fetches the keys, again and again, for ever."""
        await repeat(self.refresh, self._wake, REFRESH_SECONDS)

    async def refresh(self) -> bool:
        """Fetches the keys once. Raises BadKeySet and what the fetch does."""
        wanted = self._wanted
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = parse(await self._fetch(), self._algorithms)
            self._take({kid: key for kid, key in keys.items() if kid not in self._dropped})
        finally:
            if wanted is not None:
                wanted.set_result(None)
                self._wanted = None
        return False

    async def ready(self) -> None:
        """Raises KeysUnavailable until there are keys."""
        if not self.current:
            raise KeysUnavailable

    async def find(self, kid: str) -> Key | None:
        """Returns a key, after one more fetch where it is unknown and the cooldown is over. Raises KeysUnavailable."""
        key = self.current.get(kid)
        if key is not None:
            return key
        await self.ready()
        if self._wanted is None and self._clock() - self._wanted_at >= COOLDOWN_SECONDS:
            self._wanted, self._wanted_at = asyncio.get_running_loop().create_future(), self._clock()
            self._wake.set()
        if self._wanted is not None:
            await asyncio.wait([self._wanted], timeout=PATIENCE_SECONDS)
        return self.current.get(kid)

    def drop_revoked(self, ended_id: str) -> None:
        """Takes notice of something that ended before its time: maybe it is a key."""
        if not ended_id.startswith(_NO_KEYS):
            self._drop(ended_id)

    def _drop(self, kid: str) -> None:
        """Trusts a key never again, whatever is published."""
        self._dropped.add(kid)
        if kid in self.current:
            self._take({one: key for one, key in self.current.items() if one != kid})
            self._wake.set()

    def _take(self, keys: PublicKeys) -> None:
        if keys != self.current:
            _log.info("keys", kids=sorted(keys))
            self.current = keys


def parse(data: bytes, algorithms: Collection[str] = ("ES256",)) -> PublicKeys:
    """Returns the keys of a key set for these algorithms by key id, leaving out others. Raises BadKeySet."""
    try:
        found = [(one["kid"], key) for one in json_object(data)["keys"] if (key := jwk.read(one, algorithms))]
    except (ValueError, TypeError, KeyError) as error:
        raise BadKeySet(f"{type(error).__name__}: {error}") from error
    by_kid = dict(found)
    if not by_kid or len(by_kid) < len(found):
        raise BadKeySet(f"no key for {' or '.join(algorithms)}, or two with the same kid")
    return by_kid


async def download(url: str, context: Callable[[], ssl.SSLContext]) -> bytes:
    """Fetches a key set over HTTPS. Follows no redirect and no proxy.

    Raises BadKeySet, aiohttp.ClientError or TimeoutError. Makes the context each time, so that renewed certificates are
    taken up.
    """
    patience = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    async with (
        aiohttp.ClientSession(timeout=patience, headers=headers, auto_decompress=False) as session,
        session.get(url, ssl=context(), allow_redirects=False) as response,
    ):
        body = bytearray()
        async for chunk in response.content.iter_chunked(LARGEST_SET):
            body += chunk
            if len(body) > LARGEST_SET:
                break
    if response.status != HTTPStatus.OK or len(body) > LARGEST_SET:
        raise BadKeySet(f"the answer is {response.status} with {len(body)} bytes")
    return bytes(body)
