"""Tokens that are and are not what they say, against the keys of their issuer."""

import hashlib
import hmac
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.jwks import Keys
from authz.tokens import InvalidToken, TokenExpired, Tokens, User
from tests.issuer import (
    ANOTHER,
    AUDIENCE,
    CLAIMS,
    HEADER,
    ISSUER,
    NOW,
    PRIVATE,
    Issuer,
    base64url,
    jwk,
    key_set,
    sign,
    token,
    without,
)


async def tokens(issuer: Issuer | None = None, clock: Callable[[], float] = lambda: NOW) -> Tokens:
    keys = Keys((issuer or Issuer()).fetch)
    await keys.refresh()
    return Tokens(keys, ISSUER, AUDIENCE, clock)


async def test_a_good_token_says_who_its_user_is() -> None:
    verifier = await tokens()
    for _ in range(2):
        assert await verifier.verify(token()) == User("usr_1", frozenset({"customer", "admin"}), "ses_1")


@pytest.mark.parametrize(
    "good",
    [
        token(typ="JWT"),
        token({"typ": "AT+JWT"}),
        token({"typ": "application/at+jwt"}),
        token(aud=["another", AUDIENCE]),
        token(nbf=NOW + 4),
        token(iat=NOW + 4),
        token(exp=NOW - 4.9),
        token(exp=NOW + 0.5),
        without("sid"),
        without("roles"),
    ],
)
async def test_what_the_standards_leave_open_is_accepted(good: str) -> None:
    assert (await (await tokens()).verify(good)).id == "usr_1"


def spliced() -> str:
    """One token's claims under another's signature."""
    return f"{token(sub='usr_2').rpartition('.')[0]}.{token().rpartition('.')[2]}"


def flipped_last_bits() -> str:
    """The same bytes in another spelling: the two last bits of a 64 byte signature's base64url mean nothing."""
    good = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return good[:-1] + alphabet[alphabet.index(good[-1]) ^ 1]


def with_signature(signature: bytes) -> str:
    return f"{token().rpartition('.')[0]}.{base64url(signature)}"


def der_signed() -> str:
    signed = token().rpartition(".")[0]
    return f"{signed}.{base64url(PRIVATE.sign(signed.encode(), ec.ECDSA(SHA256())))}"


def mac_with_the_public_key() -> str:
    """The attack on verifiers that let the token choose the algorithm."""
    pem = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{base64url(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{base64url(json.dumps(CLAIMS).encode())}"
    return f"{signed}.{base64url(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


HOURS = 3600
DEEP = 1500
ATTACKS: dict[str, str] = {
    "empty": "",
    "one part": "abc",
    "four parts": token() + ".abc",
    "empty parts": "..",
    "too long": token(padding="x" * 4096),
    "not ASCII": token() + "\u00e9",
    "a blank within": token()[:30] + " " + token()[30:],
    "a line break at the end": token() + "\n",
    "padded": token() + "==",
    "another spelling of the signature": flipped_last_bits(),
    "no signature": with_signature(b""),
    "a zero signature": with_signature(bytes(64)),
    "a short signature": with_signature(bytes(63)),
    "a DER signature": der_signed(),
    "another's key": token(private=ANOTHER),
    "another token's signature": spliced(),
    "alg none": sign(json.dumps({**HEADER, "alg": "none"}), json.dumps(CLAIMS)).rpartition(".")[0] + ".",
    "alg HS256 with the public key": mac_with_the_public_key(),
    "alg ES384": token({"alg": "ES384"}),
    "alg in lower case": token({"alg": "es256"}),
    "alg a list": token({"alg": ["ES256"]}),
    "no alg": sign('{"typ":"at+jwt","kid":"k1"}', json.dumps(CLAIMS)),
    "an id token": token({"typ": "JWT"}),
    "no typ": sign('{"alg":"ES256","kid":"k1"}', json.dumps(CLAIMS)),
    "typ a number": token({"typ": 1}),
    "no kid": sign('{"alg":"ES256","typ":"at+jwt"}', json.dumps(CLAIMS)),
    "kid a number": token({"kid": 1}),
    "an unknown kid": token({"kid": "../../k1"}),
    "crit": token({"crit": ["exp"]}),
    "jku": token({"jku": "https://evil.example/keys"}),
    "jwk": token({"jwk": jwk(ANOTHER, "k1")}, private=ANOTHER),
    "x5u": token({"x5u": "https://evil.example/cert"}),
    "alg twice": sign('{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"k1"}', json.dumps(CLAIMS)),
    "a header that is a list": sign("[]", json.dumps(CLAIMS)),
    "a header nested deeply": sign("[" * DEEP + "]" * DEEP, "{}"),
    "a header in UTF-16": f"{base64url(json.dumps(HEADER).encode('utf-16'))}.{token().partition('.')[2]}",
    "sub twice": sign(json.dumps(HEADER), json.dumps(CLAIMS)[:-1] + ',"sub":"usr_2"}'),
    "claims that are a list": sign(json.dumps(HEADER), "[]"),
    "claims that are no JSON": sign(json.dumps(HEADER), "sub=usr_1"),
    "another issuer": token(iss="https://issuer.example/"),
    "no issuer": without("iss"),
    "another audience": token(aud="another"),
    "no audience": without("aud"),
    "a part of the audience": token(aud=["draw", "bridge"]),
    "no sub": without("sub"),
    "sub empty": token(sub=""),
    "sub a number": token(sub=1),
    "sub with a line break": token(sub="usr_1\r\nx-user-roles: admin"),
    "sid with a blank": token(sid="ses 1"),
    "sid null": token(sid=None),
    "roles a text": token(roles="admin"),
    "a role that is two": token(roles=["customer,admin"]),
    "a role that is a list": token(roles=[["admin"]]),
    "no exp": without("exp"),
    "exp a text": token(exp=str(int(NOW) + 600)),
    "exp true": token(exp=True),
    "exp infinite": sign(json.dumps(HEADER), json.dumps({**CLAIMS, "exp": 0}).replace('"exp": 0', '"exp": 1e999')),
    "exp not a number": sign(json.dumps(HEADER), json.dumps({**CLAIMS, "exp": float("nan")})),
    "no iat": without("iat"),
    "issued in the future": token(iat=NOW + 60),
    "issued beyond what a float holds": token(iat=10**400),
    "not valid yet": token(nbf=NOW + 60),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
async def test_anything_else_is_no_token(attack: str) -> None:
    verifier = await tokens()
    for _ in range(2):
        with pytest.raises(InvalidToken):
            await verifier.verify(attack)


@pytest.mark.parametrize("exp", [NOW - 5, NOW - HOURS, 0, -1])
async def test_an_expired_token_is_told_apart(exp: float) -> None:
    with pytest.raises(TokenExpired):
        await (await tokens()).verify(token(exp=exp))


async def test_a_token_that_was_good_expires_though_it_is_remembered() -> None:
    time_now = [NOW]
    verifier = await tokens(clock=lambda: time_now[0])
    await verifier.verify(token())
    time_now[0] += 606
    with pytest.raises(TokenExpired):
        await verifier.verify(token())


async def test_a_token_that_was_good_is_refused_once_its_key_is_gone() -> None:
    issuer = Issuer()
    keys = Keys(issuer.fetch)
    await keys.refresh()
    verifier = Tokens(keys, ISSUER, AUDIENCE, lambda: NOW)
    await verifier.verify(token())
    issuer.published = key_set(jwk(ANOTHER, "k2"))
    await keys.refresh()
    with pytest.raises(InvalidToken):
        await verifier.verify(token())
