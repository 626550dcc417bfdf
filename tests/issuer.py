"""A hand-written issuer of access tokens, good ones and others."""

import asyncio
import base64
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from user.v1 import user_pb2

from services.runtime.bus import Bus
from services.runtime.revocations import Revocations, RevocationsUnavailable

ISSUER, AUDIENCE = "https://issuer.example", "drawbridge"
NOW = time.time()
PRIVATE = ec.generate_private_key(ec.SECP256R1())
ANOTHER = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "usr_1",
    "sid": "ses_1",
    "roles": ["customer", "admin"],
    "jti": "token-1",
    "client_id": "drawbridge",
    "iat": int(NOW),
    "exp": int(NOW) + 600,
}
HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(private: ec.EllipticCurvePrivateKey, kid: str, **members: Any) -> dict[str, Any]:
    numbers = private.public_key().public_numbers()
    x, y = (base64url(number.to_bytes(32)) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y, **members}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def sign(header: str, payload: str, private: ec.EllipticCurvePrivateKey = PRIVATE) -> str:
    """A token with any header and payload, signed as ES256 is."""
    signed = f"{base64url(header.encode())}.{base64url(payload.encode())}"
    return f"{signed}.{base64url(jwt.get_algorithm_by_name('ES256').sign(signed.encode(), private))}"


def token(header: dict[str, Any] | None = None, private: ec.EllipticCurvePrivateKey = PRIVATE, **claims: Any) -> str:
    return sign(json.dumps({**HEADER, **(header or {})}), json.dumps({**CLAIMS, **claims}), private)


def without(claim: str) -> str:
    return sign(json.dumps(HEADER), json.dumps({name: value for name, value in CLAIMS.items() if name != claim}))


@dataclass
class Publisher:
    """A hand-written issuer's keys: what it publishes, and how often it was asked."""

    published: bytes = field(default_factory=lambda: key_set(jwk(PRIVATE, "k1")))
    asked: int = 0
    failures: int = 0
    """How many of the first times that it is asked it cannot be reached."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    async def fetch(self) -> bytes:
        self.asked += 1
        await self.go_on.wait()
        await asyncio.sleep(0)
        if self.asked <= self.failures:
            raise OSError("unreachable")
        return self.published


class Heard(Revocations):
    """What ended, as the test says, without NATS."""

    def __init__(self) -> None:
        super().__init__(Bus("tls://nowhere", ssl.create_default_context))
        self.read = True
        self.connected = True

    def require_read(self) -> None:
        if not self.read:
            raise RevocationsUnavailable

    @property
    def are_current(self) -> bool:
        return self.connected

    def end(self, subject_id: str, end_time: float | None = None) -> None:
        event = user_pb2.SessionEvent(session_id=subject_id)
        event.end_time.FromNanoseconds(int((time.time() if end_time is None else end_time) * 1e9))
        self._hear(f"session.{subject_id}", event.SerializeToString())
