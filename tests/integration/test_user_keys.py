"""The signing keys of all replicas, in a real database."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from services.runtime.bus import Bus, open_bus
from services.runtime.outbox import Outbox
from services.runtime.postgres import Database, open_database
from services.user.domain import ACCESS_TOKEN_LIFETIME, KEY_AGE, KEY_GRACE, KEY_NOTICE, SigningKeysUnavailable
from services.user.keys import KeyRing, WrongSecret
from services.user.rotate import RevokeSettings, revoke
from services.user.store import SigningKeys
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import identity
from tests.waiting import eventually

SECRET = "a secret of the test alone"


@pytest.fixture
async def database(fresh_database: FreshDatabase) -> AsyncIterator[Database]:
    async with open_database(fresh_database("user")) as database:
        yield database


@pytest.fixture
async def bus(nats_url: str, certificates: Path) -> AsyncIterator[Bus]:
    async with open_bus(nats_url, identity(certificates, "user")) as bus:
        yield bus


async def ring(database: Database) -> KeyRing:
    made = KeyRing(SigningKeys(database), SECRET)
    await made.refresh()
    return made


async def pass_time(database: Database, by: timedelta) -> None:
    """As if the keys were that much older."""
    await database.execute(
        "UPDATE signing_keys SET sign_from = sign_from - $1::interval, create_time = create_time - $1::interval", by
    )


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def kids(keys: KeyRing) -> set[str]:
    return {key.kid for key in keys.published()}


async def test_replicas_that_start_together_share_one_active_and_one_next_key(database: Database) -> None:
    replicas = await asyncio.gather(*(ring(database) for _ in range(4)))
    assert len(kids(replicas[0])) == 2
    assert len({frozenset(kids(replica)) for replica in replicas}) == 1
    assert len({kid_of(replica.sign({}, datetime.now(UTC))) for replica in replicas}) == 1


async def test_after_its_age_a_key_gives_way_to_the_one_published_long_before(database: Database) -> None:
    keys = await ring(database)
    first, before = kid_of(keys.sign({}, datetime.now(UTC))), kids(keys)
    await pass_time(database, KEY_AGE)
    await keys.refresh()
    second = kid_of(keys.sign({}, datetime.now(UTC)))
    assert first != second
    assert second in before
    assert kids(keys) > before
    await pass_time(database, ACCESS_TOKEN_LIFETIME + KEY_GRACE)
    await keys.refresh()
    assert first not in kids(keys)
    assert len(kids(keys)) == 2


async def test_a_hastened_rotation_reaches_all_replicas_but_waits_for_the_keys_notice(database: Database) -> None:
    keys, other = await ring(database), await ring(database)
    first = kid_of(keys.sign({}, datetime.now(UTC)))
    await SigningKeys(database).hasten(datetime.now(UTC))
    await keys.refresh()
    assert kid_of(keys.sign({}, datetime.now(UTC))) == first
    await pass_time(database, KEY_NOTICE)
    await keys.refresh()
    await other.refresh()
    now = datetime.now(UTC)
    assert kid_of(keys.sign({}, now)) == kid_of(other.sign({}, now)) != first


async def test_private_keys_are_stored_encrypted_and_open_with_the_secret_alone(database: Database) -> None:
    await ring(database)
    rows = await database.fetch("SELECT sealed FROM signing_keys")
    assert all(row["sealed"].startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") for row in rows)
    with pytest.raises(WrongSecret):
        await KeyRing(SigningKeys(database), "another secret altogether").refresh()


async def test_before_the_keys_are_read_nothing_is_signed_or_published(database: Database) -> None:
    keys = KeyRing(SigningKeys(database), SECRET)
    with pytest.raises(SigningKeysUnavailable):
        keys.published()
    with pytest.raises(SigningKeysUnavailable):
        await keys.ready()


async def revoked(database: Database, kid: str, bus: Bus) -> bool:
    return await SigningKeys(database).revoke(kid, datetime.now(UTC), Outbox("user", database, bus))


async def test_after_a_revoked_key_the_next_one_signs_at_once_and_everybody_is_told(
    database: Database, bus: Bus
) -> None:
    keys = await ring(database)
    leaked = kid_of(keys.sign({}, datetime.now(UTC)))
    [successor] = kids(keys) - {leaked}
    assert await revoked(database, leaked, bus)
    await keys.refresh()
    assert kid_of(keys.sign({}, datetime.now(UTC))) == successor
    assert leaked not in kids(keys)
    assert len(kids(keys)) == 2
    [told] = await database.fetch("SELECT subject FROM outbox")
    assert told["subject"] == f"session.{leaked}"
    assert not await revoked(database, leaked, bus)


async def test_a_key_whose_turn_has_not_come_or_is_over_can_be_revoked_without_changing_turns(
    database: Database, bus: Bus
) -> None:
    keys = await ring(database)
    first = kid_of(keys.sign({}, datetime.now(UTC)))
    [waiting] = kids(keys) - {first}
    assert await revoked(database, waiting, bus)
    await keys.refresh()
    assert kid_of(keys.sign({}, datetime.now(UTC))) == first
    await pass_time(database, KEY_AGE)
    await keys.refresh()
    second = kid_of(keys.sign({}, datetime.now(UTC)))
    assert second not in (first, waiting)
    assert await revoked(database, first, bus)
    await keys.refresh()
    assert kid_of(keys.sign({}, datetime.now(UTC))) == second


async def test_replicas_hear_of_a_revoked_key_and_make_others_where_none_is_left(
    fresh_database: FreshDatabase, nats_url: str, certificates: Path
) -> None:
    url = fresh_database("user")
    who = identity(certificates, "user")
    settings = RevokeSettings(database_url=url, nats_url=nats_url, tls_cert=who.cert, tls_key=who.key, tls_ca=who.ca)
    async with open_database(url) as database, open_bus(nats_url, who) as bus:
        replicas = [await ring(database) for _ in range(2)]
        tasks = [asyncio.create_task(one.run()) for one in replicas]
        for one in replicas:
            await one.hear(bus)
        leaked = kids(replicas[0])
        for kid in leaked:
            assert await revoke(settings, kid)
        assert not await revoke(settings, "unheard-of")
        for one in replicas:

            async def is_renewed(one: KeyRing = one) -> bool:
                return kids(one).isdisjoint(leaked) and kid_of(one.sign({}, datetime.now(UTC))) not in leaked

            await eventually(is_renewed, 20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
