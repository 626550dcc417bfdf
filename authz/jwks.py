"""The keys of the tokens' issuer: a JSON Web Key Set (RFC 7517), fetched and kept fresh in the background."""

import asyncio
import http.client
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from authz.strict import base64url, json_object
from services.runtime.errors import Unavailable
from services.runtime.tls import Identity
from services.runtime.worker import repeat

REFRESH_SECONDS = 60.0
COOLDOWN_SECONDS = 10.0
"""How long after a fetch for an unknown key id the next unknown one may cause another."""
PATIENCE_SECONDS = 0.5
"""How long a request waits for such a fetch: less than the edge waits for authz."""
FETCH_SECONDS = 5.0
LARGEST_SET = 64 * 1024
_COORDINATE_BYTES = 32  # P-256

PublicKeys = Mapping[str, ec.EllipticCurvePublicKey]

_log = structlog.get_logger()


class KeysUnavailable(Unavailable):
    """The issuer's keys have not been fetched yet."""

    message = "Access tokens cannot be checked yet."


class BadKeySet(Exception):
    """What was fetched is no key set to trust. The keys there are stay."""


class Keys:
    """The issuer's keys. Old ones are kept while new ones cannot be had."""

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self.current: PublicKeys = {}
        """By key id. A new mapping after every fetch."""
        self._wake = asyncio.Event()
        self._wanted: asyncio.Future[None] | None = None
        self._wanted_at = float("-inf")

    async def run(self) -> None:
        """Fetches the keys, again and again, for ever."""
        await repeat(self.refresh, self._wake, REFRESH_SECONDS)

    async def refresh(self) -> bool:
        """Fetches the keys once. Raises BadKeySet and what the fetch does."""
        wanted, self._wanted = self._wanted, None
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = parse(await self._fetch())
            if keys.keys() != self.current.keys():
                _log.info("keys", kids=sorted(keys))
            self.current = keys
        finally:
            if wanted is not None:
                wanted.set_result(None)
        return False

    async def ready(self) -> None:
        """Raises KeysUnavailable until there are keys."""
        if not self.current:
            raise KeysUnavailable

    async def find(self, kid: str) -> ec.EllipticCurvePublicKey | None:
        """Returns a key, after one more fetch where it is unknown and the cooldown is over. Raises KeysUnavailable."""
        await self.ready()
        if kid not in self.current:
            if self._wanted is None and self._clock() - self._wanted_at >= COOLDOWN_SECONDS:
                self._wanted, self._wanted_at = asyncio.get_running_loop().create_future(), self._clock()
                self._wake.set()
            if self._wanted is not None:
                await asyncio.wait([self._wanted], timeout=PATIENCE_SECONDS)
        return self.current.get(kid)


def parse(data: bytes) -> PublicKeys:
    """Returns the ES256 keys of a key set by key id, leaving out keys of other kinds. Raises BadKeySet."""
    try:
        members = json_object(data)["keys"]
        keys = [(jwk["kid"], _public_key(jwk)) for jwk in members if _for_es256(jwk)]
    except (ValueError, TypeError, KeyError) as error:
        raise BadKeySet(f"{type(error).__name__}: {error}") from error
    by_kid = dict(keys)
    if not by_kid or len(by_kid) < len(keys):
        raise BadKeySet("no key for ES256, or two with the same kid")
    return by_kid


def _for_es256(jwk: dict[str, Any]) -> bool:
    """Tells whether a key is for checking ES256 signatures. Raises BadKeySet where it is no public key at all."""
    if jwk["kty"] == "oct" or "d" in jwk or "k" in jwk:
        raise BadKeySet("it holds a secret key")
    return (
        (jwk["kty"], jwk.get("crv")) == ("EC", "P-256")
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", "ES256") == "ES256"
        and jwk.get("key_ops", ["verify"]) == ["verify"]
    )


def _public_key(jwk: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    """Returns the key. Raises ValueError for a point that is not on the curve."""
    if not isinstance(jwk["kid"], str):
        raise TypeError("a kid is not text")
    x, y = base64url(jwk["x"]), base64url(jwk["y"])
    if (len(x), len(y)) != (_COORDINATE_BYTES, _COORDINATE_BYTES):
        raise ValueError("a coordinate has not 32 bytes")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
    return numbers.public_key()


def download(url: str, identity: Identity) -> bytes:
    """Fetches a key set over HTTPS. Follows no redirect and no proxy. Raises BadKeySet, OSError or HTTPException.

    Reads the certificates each time, so that renewed ones are taken up.
    """
    address = urlsplit(url)
    connection = http.client.HTTPSConnection(
        address.hostname or "", address.port, timeout=FETCH_SECONDS / 2, context=identity.context()
    )
    try:
        target = address._replace(scheme="", netloc="", fragment="").geturl()
        connection.request("GET", target, headers={"accept": "application/json"})
        response = connection.getresponse()
        body = response.read(LARGEST_SET + 1)
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK or len(body) > LARGEST_SET:
        raise BadKeySet(f"the answer is {response.status} with {len(body)} bytes")
    return body
