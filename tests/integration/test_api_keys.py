"""API keys: who makes them and what they are good for."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from user.v1 import api_key_pb2

from services.user.api_keys.domain import API_KEYS_PER_USER
from tests.integration.conftest import FreshDatabase
from tests.integration.keys import at, expire, get, give_roles, list_of, make, resolve, revoke
from tests.integration.serving import detail, reason
from tests.integration.users import House, open_house, refused


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("user"), nats_url, certificates) as opened:
        yield opened


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


async def test_who_is_not_a_user_here_makes_no_key(house: House) -> None:
    stranger = house.keys_as("of-an-outside-issuer", "customer")
    error = await refused(stranger.CreateApiKey(api_key_pb2.CreateApiKeyRequest(display_name="cash desk")))
    assert reason(error) == "USER_NOT_FOUND"


async def test_only_authz_resolves_keys(house: House) -> None:
    request = api_key_pb2.ResolveApiKeyRequest(sha256=b"")
    assert reason(await refused(house.keys_as("usr_admin", "admin").ResolveApiKey(request))) == "CALLER_NOT_ALLOWED"
    assert reason(await refused(house.asked_by_authz().ResolveApiKey(request))) == "API_KEY_NOT_FOUND"


async def test_who_makes_and_who_revokes_a_key_is_in_the_audit_trail_and_who_fails_to_is_not(house: House) -> None:
    user, other = await house.sign_up(), await house.sign_up()
    made = await make(house, user)
    await refused(revoke(house, other, made.id))
    await resolve(house, made.key)
    await revoke(house, user, made.id)
    assert await house.trail(f"apiKeys/{made.id}") == [(user.id, "CreateApiKey"), (user.id, "RevokeApiKey")]
