"""The signing keys as they are used: generated, sealed, opened, published, and rotated in the background."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from services.runtime.bus import SESSION, Bus
from services.runtime.worker import repeat
from services.user.domain import SigningKey, SigningKeysUnavailable, signing
from services.user.store import SigningKeys

REFRESH_SECONDS = 30.0
"""How soon a replica learns what another one, or an operator, changed."""
_COORDINATE_BYTES = 32  # P-256


class WrongSecret(Exception):
    """SIGNING_KEY_SECRET is not the one that the keys in the database were sealed with."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key as it is published (RFC 7518, 6.2.1), in base64url."""

    kid: str
    x: str
    y: str

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> "PublicKey":
        """Takes the public half. The kid is the key's thumbprint (RFC 7638)."""
        numbers = private.public_key().public_numbers()
        x, y = (_base64url(number.to_bytes(_COORDINATE_BYTES)) for number in (numbers.x, numbers.y))
        members = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
        return cls(_base64url(hashlib.sha256(members.encode()).digest()), x, y)


class KeyRing:
    """The keys of this replica: what the database has, opened."""

    def __init__(self, store: SigningKeys, secret: str) -> None:
        self._store = store
        self._secret = secret.encode()
        self._keys: list[SigningKey] = []
        self._opened: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._published: list[PublicKey] = []
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Reads the keys and rotates them by age, for ever."""
        await repeat(self.refresh, self._wake, REFRESH_SECONDS)

    async def hear(self, bus: Bus) -> None:
        """Has the keys read anew whenever one of them is revoked, from when NATS can be reached."""
        await bus.listen(f"{SESSION}.>", self._hear)

    def _hear(self, subject: str, _: bytes) -> None:
        if subject.removeprefix(f"{SESSION}.") in self._opened:
            self._wake.set()

    async def refresh(self) -> bool:
        """Takes up what is in the database, after making what is missing there."""
        keys = await self._store.arrange(datetime.now(UTC), self._make)
        self._opened = {key.kid: self._opened.get(key.kid) or self._open(key) for key in keys}
        self._published = [PublicKey.of(private) for private in self._opened.values()]
        self._keys = keys
        return False

    async def ready(self) -> None:
        """Raises SigningKeysUnavailable until there is a key to sign with."""
        signing(self._keys, datetime.now(UTC))

    def sign(self, claims: Mapping[str, Any], now: datetime) -> str:
        """Returns an access token (RFC 9068). Raises SigningKeysUnavailable."""
        kid = signing(self._keys, now).kid
        return jwt.encode(dict(claims), self._opened[kid], "ES256", headers={"typ": "at+jwt", "kid": kid})

    def published(self) -> list[PublicKey]:
        """Returns the active key, the next one, and those whose last token still lives.

        Raises SigningKeysUnavailable.
        """
        if not self._published:
            raise SigningKeysUnavailable
        return self._published

    def _make(self, sign_from: datetime) -> SigningKey:
        private = ec.generate_private_key(ec.SECP256R1())
        sealed = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(self._secret))
        return SigningKey(PublicKey.of(private).kid, sealed, sign_from)

    def _open(self, key: SigningKey) -> ec.EllipticCurvePrivateKey:
        try:
            private = load_pem_private_key(key.sealed, self._secret)
        except ValueError as error:
            raise WrongSecret(f"SIGNING_KEY_SECRET does not open signing key {key.kid}") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise TypeError(f"signing key {key.kid} is not on an elliptic curve")
        return private


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
