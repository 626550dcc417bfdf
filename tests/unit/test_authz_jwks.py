"""The issuer's keys: what is believed, when they are fetched, and what is kept when they cannot be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authz.jwk import ALGORITHMS
from authz.jwks import COOLDOWN_SECONDS, BadKeySet, Keys, KeysUnavailable, parse
from tests.issuer import PRIVATE, Publisher, base64url, jwk, key_set
from tests.outside import okp_jwk, p384_jwk, rsa_jwk
from tests.waiting import eventually

ANOTHER = ec.generate_private_key(ec.SECP256R1())
pytestmark = pytest.mark.usefixtures("_patience")
P384 = ec.generate_private_key(ec.SECP384R1())
RSA_2048 = rsa_jwk(rsa.generate_private_key(65537, 2048), "r1")
SMALL = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (1 + 2**255).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
]
RSA = {"kty": "RSA", "kid": "r1", "use": "sig", "alg": "RS256", "n": "AQAB", "e": "AQAB"}


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told of an unknown key because the machine is slow."""
    monkeypatch.setattr("authz.jwks.PATIENCE_SECONDS", 30.0)


def point(x: bytes, y: bytes) -> dict[str, Any]:
    return {**jwk(PRIVATE, "k1"), "x": base64url(x), "y": base64url(y)}


@asynccontextmanager
async def running(keys: Keys) -> AsyncIterator[None]:
    task = asyncio.create_task(keys.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_keys_for_es256_are_taken_and_keys_of_other_kinds_left_out() -> None:
    bare = {name: value for name, value in jwk(ANOTHER, "k2").items() if name not in {"use", "alg"}}
    published = key_set(
        jwk(PRIVATE, "k1"),
        bare,
        RSA,
        jwk(PRIVATE, "k3", use="enc"),
        jwk(PRIVATE, "k4", alg="ECDH-ES"),
        jwk(PRIVATE, "k5", key_ops=["sign"]),
        jwk(PRIVATE, "k6", crv="P-384"),
    )
    assert parse(published).keys() == {"k1", "k2"}


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": ["k1"]}',
        b'{"keys": [null]}',
        b'{"keys": [], "keys": []}',
        key_set(),
        key_set(RSA),
        key_set(jwk(PRIVATE, "k1", d="AQAB")),
        key_set(jwk(PRIVATE, "k1"), {"kty": "oct", "kid": "s", "k": "AQAB"}),
        key_set(jwk(PRIVATE, "k1"), jwk(ANOTHER, "k1")),
        key_set({**jwk(PRIVATE, "k1"), "kid": 1}),
        key_set({name: value for name, value in jwk(PRIVATE, "k1").items() if name != "kid"}),
        key_set(point(bytes(32), bytes(32))),
        key_set(point(b"\1" * 32, b"\2" * 32)),
        key_set(point(b"\1" * 31, b"\2" * 32)),
        key_set({**jwk(PRIVATE, "k1"), "x": 1}),
        key_set({**jwk(PRIVATE, "k1"), "x": jwk(PRIVATE, "k1")["x"] + "="}),
    ],
)
def test_rubbish_and_secrets_are_no_key_set(rubbish: bytes) -> None:
    with pytest.raises(BadKeySet):
        parse(rubbish)


@pytest.mark.parametrize(
    ("kind", "published"),
    [
        ("a modulus of 1024 bits", {**RSA_2048, "n": base64url((2**1023 + 1).to_bytes(128))}),
        ("an exponent of 3", {**RSA_2048, "e": "Aw"}),
        ("an even exponent", {**RSA_2048, "e": "AQAA"}),
        ("an exponent of 1", {**RSA_2048, "e": "AQ"}),
        ("an even modulus", {**RSA_2048, "n": base64url((2**2047 + 2).to_bytes(256))}),
        ("a modulus of 16384 bits", {**RSA_2048, "n": base64url((2**16383 + 1).to_bytes(2048))}),
        ("a padded modulus", {**RSA_2048, "n": RSA_2048["n"] + "="}),
        ("a private RSA key", {**RSA_2048, "d": "AQAB"}),
        ("a private factor", {**RSA_2048, "p": "AQAB"}),
        ("a private RSA key for something else", {**RSA_2048, "use": "enc", "d": "AQAB"}),
        ("a point of ES384 in P-256's length", {**p384_jwk(P384, "p1"), "x": base64url(b"\1" * 32)}),
        ("a point that is not on P-384", {**p384_jwk(P384, "p1"), "x": base64url(b"\1" * 48)}),
        ("a short Ed25519 key", okp_jwk(b"\1" * 31, "e1")),
        ("a long Ed25519 key", okp_jwk(b"\1" * 33, "e1")),
        ("an Ed25519 key that is not reduced", okp_jwk(b"\xff" * 32, "e1")),
        *((f"the small point {point.hex()[:8]}", okp_jwk(point, "e1")) for point in SMALL),
        ("a kid that is empty", {**RSA_2048, "kid": ""}),
        ("a kid that is long", {**RSA_2048, "kid": "k" * 256}),
        ("a kid that is a list", {**RSA_2048, "kid": ["k"]}),
        ("no kty", {"kid": "k1"}),
        ("a kty that is a list", {**RSA_2048, "kty": ["RSA"]}),
    ],
)
def test_weak_and_broken_keys_make_a_key_set_that_is_not_trusted(kind: str, published: dict[str, Any]) -> None:
    with pytest.raises(BadKeySet):
        parse(key_set(jwk(PRIVATE, "k1"), published), ALGORITHMS)


@pytest.mark.parametrize(
    "members",
    [
        {"alg": "RS512"},
        {"alg": "RSA-OAEP"},
        {"alg": "ES256"},
        {"alg": "none"},
        {"alg": ["RS256"]},
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"crv": "P-256"},
        {"kty": "XYZ"},
    ],
)
def test_a_key_for_anything_else_is_left_out(members: dict[str, Any]) -> None:
    assert parse(key_set(jwk(PRIVATE, "k1"), {**RSA_2048, **members}), ALGORITHMS).keys() == {"k1"}


def test_a_signature_that_anybody_can_make_for_a_small_point_is_why_such_keys_are_refused() -> None:
    identity_point = (1).to_bytes(32, "little")
    anybodys = identity_point + bytes(32)
    ed25519.Ed25519PublicKey.from_public_bytes(identity_point).verify(anybodys, b"whatever was not signed")


async def test_a_revoked_key_is_gone_at_once_and_for_good() -> None:
    publisher = Publisher(key_set(jwk(PRIVATE, "k1"), jwk(ANOTHER, "k2")))
    keys = Keys(publisher.fetch)
    keys.drop_revoked("k2")
    await keys.refresh()
    assert keys.current.keys() == {"k1"}
    before = keys.current
    for ended in ("ses_1", "key_1", "usr_1", "k3"):
        keys.drop_revoked(ended)
    await keys.refresh()
    assert keys.current is before  # so what was verified with them stays remembered
    keys.drop_revoked("k1")
    assert keys.current == {}
    await keys.refresh()
    with pytest.raises(KeysUnavailable):
        await keys.find("k1")


async def test_whoever_comes_while_an_unknown_key_is_fetched_waits_too() -> None:
    publisher = Publisher()
    keys = Keys(publisher.fetch)
    async with running(keys):
        await eventually(partial(keys.find, "k1"))
        publisher.published = key_set(jwk(PRIVATE, "k1"), jwk(ANOTHER, "k2"))
        publisher.go_on.clear()
        first = asyncio.create_task(keys.find("k2"))
        await eventually(partial(has_asked, publisher, 2))
        second = asyncio.create_task(keys.find("k2"))
        await asyncio.sleep(0)
        publisher.go_on.set()
        assert await first is not None
        assert await second is not None
        assert publisher.asked == 2


async def has_asked(publisher: Publisher, times: int) -> bool:
    return publisher.asked == times


async def test_until_there_are_keys_nothing_can_be_said_of_a_token() -> None:
    keys = Keys(Publisher(failures=1).fetch)
    with pytest.raises(OSError, match="unreachable"):
        await keys.refresh()
    with pytest.raises(KeysUnavailable):
        await keys.ready()
    with pytest.raises(KeysUnavailable):
        await keys.find("k1")


async def test_keys_are_fetched_again_soon_after_a_first_failure() -> None:
    issuer = Publisher(failures=2)
    keys = Keys(issuer.fetch)
    async with running(keys):
        await eventually(partial(keys.find, "k1"))
    assert issuer.asked == 3


@pytest.mark.parametrize("published", [b"rubbish", None])
async def test_old_keys_are_kept_while_new_ones_cannot_be_had(published: bytes | None) -> None:
    issuer = Publisher()
    keys = Keys(issuer.fetch)
    await keys.refresh()
    issuer.failures, issuer.published = 0 if published else 9, published or b""
    with pytest.raises((BadKeySet, OSError)):
        await keys.refresh()
    assert await keys.find("k1") is not None


async def test_an_unknown_key_is_fetched_once_for_all_who_wait_and_once_per_cooldown() -> None:
    issuer, now = Publisher(), [1000.0]
    keys = Keys(issuer.fetch, clock=lambda: now[0])
    async with running(keys):
        await eventually(partial(keys.find, "k1"))
        issuer.published = key_set(jwk(PRIVATE, "k1"), jwk(ANOTHER, "k2"))
        found = await asyncio.gather(*(keys.find("k2") for _ in range(20)))
        assert all(key is not None for key in found)
        assert issuer.asked == 2
        assert await keys.find("k3") is None
        assert issuer.asked == 2
        now[0] += COOLDOWN_SECONDS
        assert await keys.find("k3") is None
        assert issuer.asked == 3


async def test_who_waits_for_an_unknown_key_is_answered_though_the_fetch_fails() -> None:
    issuer = Publisher()
    keys = Keys(issuer.fetch)
    async with running(keys):
        await eventually(partial(keys.find, "k1"))
        issuer.failures = 9
        assert await keys.find("k2") is None
        assert await keys.find("k1") is not None
