"""When API keys were used last, and what it costs to know."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from user.v1 import api_key_pb2, user_pb2

from tests.integration.conftest import FreshDatabase
from tests.integration.keys import get, make, resolve
from tests.integration.users import House, open_house
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("user"), nats_url, certificates) as opened:
        noting = asyncio.create_task(opened.api_keys.note_uses())
        yield opened
        noting.cancel()


async def test_a_key_says_when_it_was_used_last(house: House) -> None:
    user = await house.sign_up()
    made = await make(house, user)
    assert not made.HasField("last_use_time")
    before = datetime.now(UTC)
    await resolve(house, made.key)
    await eventually(lambda: _is_used(house, user, made))
    used = (await get(house, user, made.id)).last_use_time.ToDatetime(UTC)
    assert before <= used <= datetime.now(UTC)
    assert made.create_time.ToDatetime(UTC) < used


async def test_a_use_is_written_once_a_minute_however_often_there_is_one(house: House) -> None:
    user = await house.sign_up()
    made, later = await make(house, user), datetime.now(UTC) + timedelta(minutes=1)
    await house.database.execute("UPDATE api_keys SET last_use_time = $2 WHERE id = $1", made.id, later)
    [before] = await house.database.fetch("SELECT xmin::text FROM api_keys WHERE id = $1", made.id)
    other = await make(house, user)
    for _ in range(3):
        await resolve(house, made.key)
    await resolve(house, other.key)
    await eventually(lambda: _is_used(house, user, other))
    [after] = await house.database.fetch("SELECT xmin::text FROM api_keys WHERE id = $1", made.id)
    assert before == after


async def test_who_asks_about_a_key_does_not_wait_for_somebody_who_has_it_locked(house: House) -> None:
    user = await house.sign_up()
    made = await make(house, user)
    async with house.database.transaction() as other:
        await other.execute("SELECT FROM api_keys WHERE id = $1 FOR UPDATE", made.id)
        await other.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user.id)
        assert (await resolve(house, made.key)).api_key_id == made.id
        another = await house.sign_up()
        free = await make(house, another)
        await resolve(house, free.key)
        await eventually(lambda: _is_used(house, another, free))
    await resolve(house, made.key)
    await eventually(lambda: _is_used(house, user, made))


async def _is_used(house: House, user: user_pb2.User, key: api_key_pb2.ApiKey) -> bool:
    return (await get(house, user, key.id)).HasField("last_use_time")
