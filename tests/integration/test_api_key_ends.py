"""The ends of API keys, and who hears of them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from user.v1 import password_pb2, password_pb2_grpc, user_pb2

from tests.integration.conftest import FreshDatabase
from tests.integration.keys import at, expire, get, give_roles, list_of, make, resolve, revoke
from tests.integration.serving import reason
from tests.integration.users import PASSWORD, House, claims, open_house, refused
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("user"), nats_url, certificates) as opened:
        yield opened


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


async def test_a_revoked_key_is_gone_and_told_of(house: House) -> None:
    user = await house.sign_up()
    made, other = await make(house, user), await make(house, user)
    await revoke(house, user, made.id)
    assert reason(await refused(resolve(house, made.key))) == "API_KEY_NOT_FOUND"
    assert reason(await refused(get(house, user, made.id))) == "API_KEY_NOT_FOUND"
    assert reason(await refused(revoke(house, user, made.id))) == "API_KEY_NOT_FOUND"
    assert [event.session_id for event in await house.told_of(user)] == [made.id]
    await resolve(house, other.key)


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


async def test_a_reset_password_revokes_all_keys_and_tells_of_them_and_a_changed_one_does_not(house: House) -> None:
    user, other = await house.sign_up(), await house.sign_up()
    made, others = [await make(house, user) for _ in range(2)], await make(house, other)
    change = password_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=f"{PASSWORD}!")
    await house.passwords_as(user.id).ChangePassword(change)
    for key in made:
        await resolve(house, key.key)
    await _reset(house, user)
    for key in made:
        assert reason(await refused(resolve(house, key.key))) == "API_KEY_NOT_FOUND"
        assert await house.trail(f"apiKeys/{key.id}") == [(user.id, "CreateApiKey"), (user.id, "ResetPassword")]
    assert {event.session_id for event in await house.told_of(user)} == {key.id for key in made}
    await resolve(house, others.key)


async def _reset(house: House, user: user_pb2.User) -> None:
    """Sets another password with a mailed code."""
    await house.passwords_as().RequestPasswordReset(password_pb2.RequestPasswordResetRequest(email=user.email))
    find = "SELECT id FROM password_resets WHERE user_id = $1"
    [asked] = await house.database.fetch(find, user.id)
    notification: password_pb2_grpc.PasswordServiceAsyncStub = password_pb2_grpc.PasswordServiceStub(
        house.peers["notification"].user()
    )
    mailed = await notification.GetPasswordReset(password_pb2.GetPasswordResetRequest(reset_id=asked["id"]))
    reset = password_pb2.ResetPasswordRequest(email=user.email, code=mailed.code, new_password=f"{PASSWORD}?")
    await house.passwords_as().ResetPassword(reset)


async def test_whose_session_has_ended_makes_no_key_though_not_everybody_has_heard_of_it(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    await make(house, user, session_id=claims(session)["sid"])
    await house.log_out(user, session)
    error = await refused(make(house, user, session_id=claims(session)["sid"]))
    assert (error.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")
