"""The issuer's keys: what is believed, when they are fetched, and what is kept when they cannot be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from authz.jwks import COOLDOWN_SECONDS, BadKeySet, Keys, KeysUnavailable, parse
from tests.issuer import PRIVATE, Publisher, base64url, jwk, key_set
from tests.waiting import eventually

ANOTHER = ec.generate_private_key(ec.SECP256R1())
RSA = {"kty": "RSA", "kid": "r1", "use": "sig", "alg": "RS256", "n": "AQAB", "e": "AQAB"}


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
