"""Sweeps: what has outlived its use goes, and nothing else."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.runtime import sweep
from services.runtime.bus import Bus
from services.runtime.outbox import Outbox
from services.runtime.postgres import Database, open_database
from services.runtime.sweep import Sweep
from services.user.store import Sessions
from tests.integration.conftest import FreshDatabase
from tests.waiting import eventually

_ADD = """
    INSERT INTO idempotency_keys (caller_id, rpc, key, request_sha256, response, create_time)
    SELECT 'usr_1', 'rpc', $1 || number, '', '', now() - $2::interval FROM generate_series(1, $3) AS number"""
_KEYS = "SELECT key FROM idempotency_keys ORDER BY key"


@pytest.fixture
async def database(fresh_database: FreshDatabase) -> AsyncIterator[Database]:
    async with open_database(fresh_database("payment")) as opened:
        yield opened


async def add(database: Database, name: str, age: timedelta, rows: int) -> None:
    await database.execute(_ADD, name, age, rows)


async def keys(database: Database) -> list[str]:
    return [row["key"] for row in await database.fetch(_KEYS)]


async def test_only_what_is_old_is_deleted(database: Database) -> None:
    await add(database, "old", timedelta(hours=49), 3)
    await add(database, "young", timedelta(hours=47), 2)
    assert not await sweep.idempotency_keys(database).batch()
    assert await keys(database) == ["young1", "young2"]


async def test_much_is_deleted_a_batch_at_a_time(database: Database) -> None:
    await add(database, "old", timedelta(hours=49), sweep.BATCH + 10)
    one = sweep.idempotency_keys(database)
    assert await one.batch()
    assert len(await keys(database)) == 10
    assert not await one.batch()
    assert await keys(database) == []


async def test_replicas_share_the_work_and_pass_by_what_is_in_use(database: Database) -> None:
    await add(database, "old", timedelta(hours=49), 3 * sweep.BATCH)
    async with database.transaction() as using:
        await using.execute("SELECT FROM idempotency_keys WHERE key = 'old7' FOR UPDATE")
        async with asyncio.timeout(10):
            await asyncio.gather(*(sweep.idempotency_keys(database).batch() for _ in range(4)))
            while await sweep.idempotency_keys(database).batch():
                pass
        assert await keys(database) == ["old7"]


async def test_a_sweep_finds_what_is_old_by_an_index(database: Database) -> None:
    await add(database, "young", timedelta(0), 10_000)
    await database.execute("ANALYZE idempotency_keys")
    async with database.connection() as connection:
        plan = await connection.fetch(
            "EXPLAIN " + sweep.idempotency_keys(database).statement, timedelta(1), sweep.BATCH
        )
    assert any("idempotency_keys_by_age" in row[0] for row in plan)


@pytest.mark.parametrize("service", ["compliance", "notification"])
async def test_events_are_remembered_as_long_as_they_can_come_again(
    fresh_database: FreshDatabase, service: str
) -> None:
    async with open_database(fresh_database(service)) as database:
        for days in (1, 37, 39):
            add_event = (
                "INSERT INTO handled_events (consumer, message_id, create_time) VALUES ($1, $2, now() - $3::interval)"
            )
            await database.execute(add_event, "consumer", f"event {days}", timedelta(days=days))
        await sweep.handled_events(database).batch()
        left = await database.fetch("SELECT message_id FROM handled_events ORDER BY message_id")
        assert [row["message_id"] for row in left] == ["event 1", "event 37"]


async def test_expired_sessions_are_deleted(fresh_database: FreshDatabase) -> None:
    add_user = """
        INSERT INTO users (id, email, password_hash, display_name, country, date_of_birth, address, roles, state,
            version, event_sequence, create_time, update_time)
        VALUES ('usr_1', '', '', '', '', now(), '', '{}', '', 1, 1, now(), now())"""
    add_session = "INSERT INTO sessions VALUES ($1, 'usr_1', '', now(), now() + $2::interval)"
    async with open_database(fresh_database("user")) as database:
        await database.execute(add_user)
        await database.execute(add_session, "expired", timedelta(seconds=-1))
        await database.execute(add_session, "open", timedelta(seconds=60))
        outbox = Outbox("user", database, Bus("nats://nowhere", ssl.create_default_context))
        await Sessions(database, outbox).sweep().batch()
        assert [row["id"] for row in await database.fetch("SELECT id FROM sessions")] == ["open"]


async def test_a_sweep_begins_at_once_and_goes_on_until_nothing_is_left(database: Database) -> None:
    await add(database, "old", timedelta(hours=49), 2 * sweep.BATCH)
    running = asyncio.create_task(Sweep(database, "idempotency_keys", "create_time", timedelta(hours=48)).run())

    async def swept() -> bool:
        return not await keys(database)

    await eventually(swept)
    running.cancel()
