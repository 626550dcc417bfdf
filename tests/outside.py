"""A hand-written identity provider beside the built-in issuer, with keys of all kinds."""

import json
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authz.jwk import ALGORITHMS
from tests.issuer import NOW, base64url, jwk, key_set


class Provider(NamedTuple):
    """Who it is."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]


THEIRS = Provider("https://idp.example/realms/theirs", "https://api.drawbridge.example", ALGORITHMS)
ED25519, P384, PSS, RSA, P256 = "e1", "p1", "s1", "r1", "k1"
_RSA = rsa.generate_private_key(65537, 2048)
_KEYS: dict[str, tuple[str, Any]] = {
    ED25519: ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    P384: ("ES384", ec.generate_private_key(ec.SECP384R1())),
    PSS: ("PS256", rsa.generate_private_key(65537, 3072)),
    RSA: ("RS256", _RSA),
    P256: ("ES256", ec.generate_private_key(ec.SECP256R1())),
}
_CLAIMS = {
    "iss": THEIRS.issuer,
    "aud": [THEIRS.audience, "account"],
    "sub": "f5b1b2c8-9e9d-4c53-8f6b-1f3b6a9d0b6e",
    "user": "usr_9",
    "sid": "theirs",
    "groups": ["payers"],
    "jti": "their-token-1",
    "client_id": "shop",
    "iat": int(NOW),
    "exp": int(NOW) + 600,
}


def rsa_jwk(private: rsa.RSAPrivateKey, kid: str, **members: Any) -> dict[str, Any]:
    numbers = private.public_key().public_numbers()
    n, e = (base64url(number.to_bytes((number.bit_length() + 7) // 8)) for number in (numbers.n, numbers.e))
    return {"kty": "RSA", "use": "sig", "kid": kid, "n": n, "e": e, **members}


def okp_jwk(x: bytes, kid: str, **members: Any) -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(x), **members}


def p384_jwk(private: ec.EllipticCurvePrivateKey, kid: str, **members: Any) -> dict[str, Any]:
    numbers = private.public_key().public_numbers()
    x, y = (base64url(number.to_bytes(48)) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-384", "kid": kid, "x": x, "y": y, **members}


def their_keys() -> bytes:
    """What it publishes."""
    return key_set(
        okp_jwk(_KEYS[ED25519][1].public_key().public_bytes_raw(), ED25519),
        p384_jwk(_KEYS[P384][1], P384, alg="ES384"),
        rsa_jwk(_KEYS[PSS][1], PSS, alg="PS256"),
        rsa_jwk(_RSA, RSA),
        jwk(_KEYS[P256][1], P256),
    )


def their_token(key: str, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token by one of its keys, with other members in its header where that is said."""
    algorithm, private = _KEYS[key]
    members = {"alg": algorithm, "typ": "at+jwt", "kid": key, **(header or {})}
    parts = (json.dumps(members), json.dumps({**_CLAIMS, **claims}))
    signed = ".".join(base64url(part.encode()) for part in parts)
    return f"{signed}.{base64url(jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), private))}"
