"""API keys: who makes and revokes them, what they are good for, and who hears of their end."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from user.v1 import api_key_pb2, user_pb2

from services.user.api_keys.domain import API_KEYS_PER_USER
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import detail, reason
from tests.integration.users import House, open_house, refused
from tests.waiting import eventually

ADMIN = ("usr_admin", "admin")


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("user"), nats_url, certificates) as opened:
        noting = asyncio.create_task(opened.api_keys.note_uses())
        yield opened
        noting.cancel()


async def make(house: House, user: user_pb2.User, *held: str, **fields: Any) -> api_key_pb2.ApiKey:
    """Makes a key for a user who holds these roles, as far as authz knows."""
    request = api_key_pb2.CreateApiKeyRequest(**{"display_name": "cash desk", **fields})
    return await house.keys_as(user.id, *(held or ("customer",))).CreateApiKey(request)


async def resolve(house: House, text: str) -> api_key_pb2.ResolveApiKeyResponse:
    """Asks as authz does."""
    sha256 = hashlib.sha256(text.encode()).digest()
    return await house.asked_by_authz().ResolveApiKey(api_key_pb2.ResolveApiKeyRequest(sha256=sha256))


async def revoke(house: House, user: user_pb2.User, key_id: str) -> None:
    await house.keys_as(user.id).RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key_id=key_id))


async def get(house: House, user: user_pb2.User, key_id: str) -> api_key_pb2.ApiKey:
    return await house.keys_as(user.id).GetApiKey(api_key_pb2.GetApiKeyRequest(api_key_id=key_id))


async def list_of(house: House, user: user_pb2.User, **page: Any) -> api_key_pb2.ListApiKeysResponse:
    return await house.keys_as(user.id).ListApiKeys(api_key_pb2.ListApiKeysRequest(**page))


async def give_roles(house: House, user: user_pb2.User, *roles: str) -> None:
    await house.update(user, "roles", by=ADMIN, user_id=user.id, roles=roles)


async def expire(house: House, *keys: api_key_pb2.ApiKey) -> None:
    """Lets the time of keys pass."""
    await house.database.execute("UPDATE api_keys SET expire_time = now() WHERE id = ANY($1)", [key.id for key in keys])


def at(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


async def test_a_key_acts_for_its_owner_as_a_customer_for_ninety_days(house: House) -> None:
    user = await house.sign_up()
    call = house.keys_as(user.id, "customer").CreateApiKey(api_key_pb2.CreateApiKeyRequest(display_name=" cash desk "))
    made = await call
    assert dict(await call.initial_metadata())["location"] == f"/api/v1/apiKeys/{made.id}"
    assert (made.display_name, list(made.roles)) == ("cash desk", ["customer"])
    assert made.expire_time.ToDatetime() - made.create_time.ToDatetime() == timedelta(days=90)
    assert made.key.startswith("dbk_")
    assert len(made.key) == 47
    known = await resolve(house, made.key)
    assert (known.api_key_id, known.user_id, list(known.roles)) == (made.id, user.id, ["customer"])
    assert known.expire_time == made.expire_time


async def test_a_key_is_shown_once_and_kept_nowhere(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    user = await house.sign_up()
    made = await make(house, user)
    assert (await get(house, user, made.id)).key == ""
    assert [one.key for one in (await list_of(house, user)).api_keys] == [""]
    await resolve(house, made.key)
    await revoke(house, user, made.id)
    assert made.key not in capsys.readouterr().out
    assert made.key not in str(made.ListFields()[:-1])
    for table in ("api_keys", "outbox", "audit"):
        rows = await house.database.fetch(f"SELECT {table}::text AS text FROM {table}")  # noqa: S608
        assert not any(made.key[4:] in row["text"] for row in rows)


async def test_no_two_keys_are_alike(house: House) -> None:
    user = await house.sign_up()
    made = [await make(house, user) for _ in range(3)]
    assert len({one.key for one in made}) == 3
    assert {(await resolve(house, one.key)).api_key_id for one in made} == {one.id for one in made}


async def test_a_key_has_the_roles_that_were_asked_for_and_none_that_its_owner_has_not(house: House) -> None:
    user = await house.sign_up()
    await give_roles(house, user, "customer", "officer")
    made = await make(house, user, "customer", "officer", roles=["officer"])
    assert list((await resolve(house, made.key)).roles) == ["officer"]
    error = await refused(make(house, user, "customer", "officer", roles=["customer", "admin"]))
    assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_HELD")


async def test_a_key_cannot_have_a_role_that_only_the_token_has_or_only_the_user(house: House) -> None:
    user = await house.sign_up()
    await give_roles(house, user, "customer", "officer")
    assert reason(await refused(make(house, user, "customer", roles=["officer"]))) == "ROLE_NOT_HELD"
    assert reason(await refused(make(house, user, "treasurer", roles=["treasurer"]))) == "ROLE_NOT_HELD"


async def test_a_key_of_an_owner_who_lost_a_role_goes_on_without_it_until_they_have_it_again(house: House) -> None:
    user = await house.sign_up()
    await give_roles(house, user, "customer", "officer", "treasurer")
    made = await make(house, user, "customer", "officer", "treasurer", roles=["treasurer", "officer", "customer"])
    await give_roles(house, user, "customer", "treasurer")
    assert list((await resolve(house, made.key)).roles) == ["customer", "treasurer"]
    await give_roles(house, user)
    assert list((await resolve(house, made.key)).roles) == []
    await give_roles(house, user, "officer")
    assert list((await resolve(house, made.key)).roles) == ["officer"]


@pytest.mark.parametrize(
    ("fields", "expected", "field"),
    [
        ({"roles": ["king"]}, "UNKNOWN_ROLE", "roles"),
        ({"display_name": ""}, "INVALID_REQUEST", "displayName"),
        ({"display_name": " \t"}, "INVALID_REQUEST", "displayName"),
        ({"display_name": "cash\u0007desk"}, "INVALID_REQUEST", "displayName"),
        ({"display_name": "x" * 101}, "INVALID_REQUEST", "displayName"),
        ({"expire_time": at(datetime.now(UTC))}, "INVALID_EXPIRE_TIME", "expireTime"),
        ({"expire_time": at(datetime.now(UTC) + timedelta(days=367))}, "INVALID_EXPIRE_TIME", "expireTime"),
        ({"expire_time": Timestamp()}, "INVALID_EXPIRE_TIME", "expireTime"),
        ({"expire_time": Timestamp(seconds=-(2**63))}, "INVALID_EXPIRE_TIME", "expireTime"),
        ({"expire_time": Timestamp(seconds=2**63 - 1, nanos=2**31 - 1)}, "INVALID_EXPIRE_TIME", "expireTime"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(house: House, fields: dict[str, Any], expected: str, field: str) -> None:
    user = await house.sign_up()
    error = await refused(make(house, user, **fields))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, expected)
    [violation] = detail(error, error_details_pb2.BadRequest()).field_violations
    assert violation.field == field
    assert not (await list_of(house, user)).api_keys


async def test_a_key_lives_as_long_as_was_asked_and_then_no_more(house: House) -> None:
    user = await house.sign_up()
    asked = datetime.now(UTC) + timedelta(days=365, microseconds=1)
    made, other = await make(house, user, expire_time=at(asked)), await make(house, user)
    assert made.expire_time.ToDatetime(UTC) == asked
    await expire(house, made)
    assert reason(await refused(resolve(house, made.key))) == "API_KEY_NOT_FOUND"
    assert reason(await refused(get(house, user, made.id))) == "API_KEY_NOT_FOUND"
    assert [one.id for one in (await list_of(house, user)).api_keys] == [other.id]


async def test_expired_keys_are_swept_and_others_are_not(house: House) -> None:
    user = await house.sign_up()
    made, other = await make(house, user), await make(house, user)
    await expire(house, made)
    await house.api_keys.sweep().batch()
    rows = await house.database.fetch("SELECT id FROM api_keys WHERE user_id = $1", user.id)
    assert [row["id"] for row in rows] == [other.id]


async def test_keys_are_listed_newest_first_page_by_page_to_their_owner(house: House) -> None:
    user, other = await house.sign_up(), await house.sign_up()
    made = [await make(house, user, display_name=f"desk {number}") for number in range(3)]
    first = await list_of(house, user, page_size=2)
    second = await list_of(house, user, page_size=2, page_token=first.next_page_token)
    assert [one.id for one in (*first.api_keys, *second.api_keys)] == [one.id for one in reversed(made)]
    assert second.next_page_token == ""
    stolen = list_of(house, other, page_size=2, page_token=first.next_page_token)
    assert reason(await refused(stolen)) == "INVALID_PAGE_TOKEN"


async def test_somebody_elses_key_is_not_there(house: House) -> None:
    user, other = await house.sign_up(), await house.sign_up()
    made = await make(house, user)
    for attempt in (get, revoke):
        error = await refused(attempt(house, other, made.id))
        assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
    admin = house.keys_as(other.id, "admin").GetApiKey(api_key_pb2.GetApiKeyRequest(api_key_id=made.id))
    assert reason(await refused(admin)) == "API_KEY_NOT_FOUND"
    assert not (await list_of(house, other)).api_keys
    await resolve(house, made.key)


async def test_a_revoked_key_is_gone_and_told_of(house: House) -> None:
    user = await house.sign_up()
    made, other = await make(house, user), await make(house, user)
    await revoke(house, user, made.id)
    assert reason(await refused(resolve(house, made.key))) == "API_KEY_NOT_FOUND"
    assert reason(await refused(get(house, user, made.id))) == "API_KEY_NOT_FOUND"
    assert reason(await refused(revoke(house, user, made.id))) == "API_KEY_NOT_FOUND"
    assert [event.session_id for event in await house.told_of(user)] == [made.id]
    await resolve(house, other.key)


async def test_a_user_has_fifty_keys_at_the_most_however_they_are_made(house: House) -> None:
    user = await house.sign_up()
    answers = await asyncio.gather(*(make(house, user) for _ in range(API_KEYS_PER_USER + 10)), return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, api_key_pb2.ApiKey)]
    assert len(made) == API_KEYS_PER_USER
    error = await refused(make(house, user))
    assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_API_KEYS")
    await revoke(house, user, made[0].id)
    await expire(house, made[1])
    await make(house, user)
    await make(house, user)
    assert reason(await refused(make(house, user))) == "TOO_MANY_API_KEYS"


async def test_keys_of_a_suspended_owner_stop_working_and_are_told_of_and_then_go_on(house: House) -> None:
    user, other = await house.sign_up(), await house.sign_up()
    made, others = [await make(house, user) for _ in range(2)], await make(house, other)
    await house.suspend(user)
    for key in made:
        assert reason(await refused(resolve(house, key.key))) == "API_KEY_NOT_FOUND"
    assert {event.session_id for event in await house.told_of(user)} == {user.id, *(key.id for key in made)}
    assert reason(await refused(make(house, user))) == "USER_SUSPENDED"
    await resolve(house, others.key)
    await house.suspend(user, user_pb2.User.ACTIVE)
    for key in made:
        await resolve(house, key.key)


async def test_whoever_makes_a_key_while_a_suspension_is_being_written_is_refused(house: House) -> None:
    user = await house.sign_up()
    async with house.outbox.transaction() as suspension:
        await suspension.execute("UPDATE users SET state = 'SUSPENDED' WHERE id = $1", user.id)
        making = asyncio.create_task(make(house, user))
        await eventually(house.somebody_waits)
    assert reason(await refused(making)) == "USER_SUSPENDED"


async def test_each_loss_of_a_role_is_told_of_anew_for_the_keys_and_the_user(house: House) -> None:
    user = await house.sign_up()
    await give_roles(house, user, "customer", "officer", "treasurer")
    made = await make(house, user)
    await give_roles(house, user, "customer", "officer")
    await give_roles(house, user, "customer")
    await give_roles(house, user, "customer", "officer")
    told = [event.session_id for event in await house.told_of(user)]
    assert sorted(told) == sorted([made.id, user.id] * 2)
    rows = await house.database.fetch("SELECT message_id FROM outbox WHERE subject = $1", f"session.{made.id}")
    assert len({row["message_id"] for row in rows}) == 2  # or JetStream drops the second


async def test_who_is_not_a_user_here_makes_no_key(house: House) -> None:
    stranger = house.keys_as("of-an-outside-issuer", "customer")
    error = await refused(stranger.CreateApiKey(api_key_pb2.CreateApiKeyRequest(display_name="cash desk")))
    assert reason(error) == "USER_NOT_FOUND"


async def test_only_authz_resolves_keys(house: House) -> None:
    request = api_key_pb2.ResolveApiKeyRequest(sha256=b"")
    assert reason(await refused(house.keys_as("usr_admin", "admin").ResolveApiKey(request))) == "CALLER_NOT_ALLOWED"
    assert reason(await refused(house.asked_by_authz().ResolveApiKey(request))) == "API_KEY_NOT_FOUND"


async def test_a_key_says_to_the_minute_when_it_was_used_last(house: House) -> None:
    user = await house.sign_up()
    made = await make(house, user)
    assert not made.HasField("last_use_time")
    before = datetime.now(UTC).replace(second=0, microsecond=0)
    await resolve(house, made.key)
    await eventually(lambda: _is_used(house, user, made))
    used = (await get(house, user, made.id)).last_use_time.ToDatetime(UTC)
    assert before <= used <= datetime.now(UTC)
    assert (used.second, used.microsecond) == (0, 0)


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


async def test_who_makes_and_who_revokes_a_key_is_in_the_audit_trail_and_who_fails_to_is_not(house: House) -> None:
    user, other = await house.sign_up(), await house.sign_up()
    made = await make(house, user)
    await refused(revoke(house, other, made.id))
    await resolve(house, made.key)
    await revoke(house, user, made.id)
    assert await house.trail(f"apiKeys/{made.id}") == [(user.id, "CreateApiKey"), (user.id, "RevokeApiKey")]


async def _is_used(house: House, user: user_pb2.User, key: api_key_pb2.ApiKey) -> bool:
    return (await get(house, user, key.id)).HasField("last_use_time")
