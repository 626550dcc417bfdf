"""Sessions: how they are renewed, and who is told when they end."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from user.v1 import user_pb2

from services.runtime.ids import new_id
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import reason
from tests.integration.users import House, claims, open_house, refused
from tests.waiting import eventually

ADMIN = ("usr_admin", "admin")


def sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("user"), nats_url, certificates) as opened:
        yield opened


async def test_a_refresh_token_works_once_and_its_second_use_ends_the_session(house: House) -> None:
    user = await house.sign_up()
    first = await house.log_in(user.email)
    second = await house.refresh(first.refresh_token)
    assert claims(second)["sid"] == claims(first)["sid"]
    assert reason(await refused(house.refresh(first.refresh_token))) == "INVALID_REFRESH_TOKEN"
    assert reason(await refused(house.refresh(second.refresh_token))) == "INVALID_REFRESH_TOKEN"


async def test_a_refresh_token_used_many_times_at_once_leaves_no_live_pair(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    answers = await asyncio.gather(*(house.refresh(session.refresh_token) for _ in range(8)), return_exceptions=True)
    pairs = [answer for answer in answers if isinstance(answer, user_pb2.Session)]
    assert len(pairs) == 1
    assert reason(await refused(house.refresh(pairs[0].refresh_token))) == "INVALID_REFRESH_TOKEN"


async def test_ending_one_session_leaves_the_others(house: House) -> None:
    user = await house.sign_up()
    ended, other = await house.log_in(user.email), await house.refresh((await house.log_in(user.email)).refresh_token)
    stub = house.sessions_as(user.id, claims(ended)["sid"])
    call = stub.DeleteSession(user_pb2.DeleteSessionRequest())
    await call
    assert dict(await call.initial_metadata())["x-http-code"] == "204"
    assert reason(await refused(house.refresh(ended.refresh_token))) == "INVALID_REFRESH_TOKEN"
    await house.refresh(other.refresh_token)


async def test_an_expired_refresh_token_is_refused(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    await house.database.execute("UPDATE sessions SET expire_time = now() WHERE user_id = $1", user.id)
    assert reason(await refused(house.refresh(session.refresh_token))) == "INVALID_REFRESH_TOKEN"


@pytest.mark.parametrize("token", ["x", "ses_" + "0" * 32 + "." + "A" * 43, "ses_\u00e4"])
async def test_what_was_never_a_refresh_token_is_refused(house: House, token: str) -> None:
    error = await refused(house.refresh(token))
    assert (error.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_REFRESH_TOKEN")


async def test_a_suspended_user_can_neither_log_in_nor_refresh(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    await house.suspend(user)
    assert reason(await refused(house.log_in(user.email))) == "USER_SUSPENDED"
    assert reason(await refused(house.log_in(user.email, "wrong"))) == "INVALID_CREDENTIALS"
    assert reason(await refused(house.refresh(session.refresh_token))) == "INVALID_REFRESH_TOKEN"


async def test_a_refresh_takes_up_the_roles_given_since(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    roles = ["admin", "customer", "officer"]
    updated = await house.update(user, "roles", by=("usr_admin", "admin"), user_id=user.id, roles=roles)
    assert list(updated.roles) == ["customer", "officer", "admin"]
    assert claims(await house.refresh(session.refresh_token))["roles"] == ["customer", "officer", "admin"]


async def test_whoever_logs_out_is_told_of_once(house: House) -> None:
    user = await house.sign_up()
    session, other = await house.log_in(user.email), await house.log_in(user.email)
    for _ in range(2):
        await house.log_out(user, session)
    [event] = await house.ended(user)
    assert (event.session_id, event.user_id) == (claims(session)["sid"], user.id)
    assert event.end_time.ToDatetime() >= user.create_time.ToDatetime()
    await house.refresh(other.refresh_token)


async def test_a_refresh_token_used_twice_is_told_of_and_one_that_is_unknown_is_not(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    await house.refresh(session.refresh_token)
    assert await house.ended(user) == []
    for _ in range(2):
        assert reason(await refused(house.refresh(session.refresh_token))) == "INVALID_REFRESH_TOKEN"
    assert [event.session_id for event in await house.ended(user)] == [claims(session)["sid"]]
    assert (await house.trail(f"sessions/{claims(session)['sid']}"))[-1] == (user.id, "RefreshSession")


async def test_whoever_knows_only_the_session_cannot_end_it(house: House) -> None:
    user = await house.sign_up()
    session = await house.refresh((await house.log_in(user.email)).refresh_token)
    guessed = f"{claims(session)['sid']}.{'A' * 43}"
    assert reason(await refused(house.refresh(guessed))) == "INVALID_REFRESH_TOKEN"
    assert await house.ended(user) == []
    await house.refresh(session.refresh_token)


async def test_a_stolen_token_is_noticed_however_often_the_thief_renews_it(house: House) -> None:
    user = await house.sign_up()
    stolen = thiefs = await house.log_in(user.email)
    for _ in range(3):
        thiefs = await house.refresh(thiefs.refresh_token)
    assert reason(await refused(house.refresh(stolen.refresh_token))) == "INVALID_REFRESH_TOKEN"
    assert [event.session_id for event in await house.ended(user)] == [claims(stolen)["sid"]]
    assert reason(await refused(house.refresh(thiefs.refresh_token))) == "INVALID_REFRESH_TOKEN"


async def test_a_session_of_the_release_before_is_renewed_by_old_and_new_replicas(house: House) -> None:
    user = await house.sign_up()
    number = new_id("ses")
    first, second = [f"{number}.{secrets.token_urlsafe(32)}" for _ in range(2)]
    await house.database.execute(
        "INSERT INTO sessions (id, user_id, refresh_sha256, create_time, expire_time) VALUES ($1, $2, $3, now(), $4)",
        *(number, user.id, sha256(first), datetime.now(UTC) + timedelta(days=1)),
    )
    await house.refresh(first)
    await house.database.execute("UPDATE sessions SET refresh_sha256 = $2 WHERE id = $1", number, sha256(second))
    third = await house.refresh(second)
    assert await house.ended(user) == []
    assert reason(await refused(house.refresh(second))) == "INVALID_REFRESH_TOKEN"
    assert [event.session_id for event in await house.ended(user)] == [number]
    assert reason(await refused(house.refresh(third.refresh_token))) == "INVALID_REFRESH_TOKEN"


async def test_a_used_token_of_a_session_that_only_old_replicas_renewed_ends_it(house: House) -> None:
    user = await house.sign_up()
    number = new_id("ses")
    used, newest = [f"{number}.{secrets.token_urlsafe(32)}" for _ in range(2)]
    await house.database.execute(
        "INSERT INTO sessions (id, user_id, refresh_sha256, create_time, expire_time) VALUES ($1, $2, $3, now(), $4)",
        *(number, user.id, sha256(newest), datetime.now(UTC) + timedelta(days=1)),
    )
    assert reason(await refused(house.refresh(used))) == "INVALID_REFRESH_TOKEN"
    assert [event.session_id for event in await house.ended(user)] == [number]


async def test_whoever_loses_a_role_loses_their_sessions_and_whoever_gains_one_keeps_them(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    await house.update(user, "roles", by=ADMIN, user_id=user.id, roles=["customer", "officer"])
    assert await house.ended(user) == []
    renewed = await house.refresh(session.refresh_token)
    await house.update(user, "roles", by=ADMIN, user_id=user.id, roles=["customer", "treasurer"])
    assert [event.session_id for event in await house.ended(user)] == [claims(session)["sid"]]
    assert reason(await refused(house.refresh(renewed.refresh_token))) == "INVALID_REFRESH_TOKEN"


async def test_an_admin_who_steps_down_loses_their_own_session(house: House) -> None:
    admin = await house.sign_up()
    await house.update(admin, "roles", by=ADMIN, user_id=admin.id, roles=["customer", "admin"])
    session = await house.log_in(admin.email)
    await house.update(admin, "roles", by=(admin.id, "admin"), roles=["customer"])
    assert [event.session_id for event in await house.ended(admin)] == [claims(session)["sid"]]


async def test_whoever_logs_in_while_a_role_is_taken_from_them_does_not_get_it(house: House) -> None:
    user = await house.sign_up()
    await house.update(user, "roles", by=ADMIN, user_id=user.id, roles=["customer", "officer"])
    async with house.outbox.transaction() as change:
        await change.execute("UPDATE users SET roles = '{customer}' WHERE id = $1", user.id)
        entering = asyncio.create_task(house.log_in(user.email))
        await eventually(house.somebody_waits)
    assert claims(await entering)["roles"] == ["customer"]


async def test_a_suspension_ends_all_sessions_of_its_user_and_tells_of_each(house: House) -> None:
    user, other = await house.sign_up(), await house.sign_up()
    sessions = [await house.log_in(user.email) for _ in range(3)]
    unaffected = await house.log_in(other.email)
    await house.suspend(user)
    assert {event.session_id for event in await house.ended(user)} == {claims(one)["sid"] for one in sessions}
    assert await house.ended(other) == []
    await house.refresh(unaffected.refresh_token)
    await house.suspend(user, user_pb2.User.ACTIVE)
    for session in sessions:
        assert reason(await refused(house.refresh(session.refresh_token))) == "INVALID_REFRESH_TOKEN"


async def test_a_suspension_that_is_not_written_ends_nothing(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    stale = house.update(user, "state", by=ADMIN, user_id=user.id, state=user_pb2.User.SUSPENDED, etag="7")
    assert reason(await refused(stale)) == "ETAG_MISMATCH"
    assert await house.ended(user) == []
    await house.refresh(session.refresh_token)


@pytest.mark.parametrize("what", ["log_in", "refresh"])
async def test_whoever_comes_in_during_a_suspension_is_out_after_it(house: House, what: str) -> None:
    for _ in range(10):
        user = await house.sign_up()
        session = await house.log_in(user.email)
        entering = (
            [house.log_in(user.email) for _ in range(4)] if what == "log_in" else [house.refresh(session.refresh_token)]
        )
        came = await asyncio.gather(*entering, house.suspend(user), return_exceptions=True)
        assert await house.database.fetch("SELECT FROM sessions WHERE user_id = $1", user.id) == []
        told = {event.session_id for event in await house.ended(user)}
        assert {claims(one)["sid"] for one in came if isinstance(one, user_pb2.Session)} <= told


async def test_whoever_logs_in_while_a_suspension_is_being_written_is_refused(house: House) -> None:
    user = await house.sign_up()
    async with house.outbox.transaction() as suspension:
        await suspension.execute("UPDATE users SET state = 'SUSPENDED' WHERE id = $1", user.id)
        entering = asyncio.create_task(house.log_in(user.email))
        await eventually(house.somebody_waits)
    assert reason(await refused(entering)) == "USER_SUSPENDED"


async def _with_older_sessions(house: House, sessions: int) -> user_pb2.User:
    """A user who has logged in that often."""
    user = await house.sign_up()
    await house.database.execute(
        "INSERT INTO sessions SELECT 'ses_0-' || $1 || lpad(number::text, 5, '0'), $1, '', now(), now() + '1 d'"
        "FROM generate_series(1, $2) AS number",
        *(user.id, sessions),
    )
    return user


async def test_whoever_logs_in_for_the_hundred_and_first_time_ends_the_first_session_and_is_told_of(
    house: House,
) -> None:
    user, other = await _with_older_sessions(house, 98), await _with_older_sessions(house, 100)
    for _ in range(2):
        await house.log_in(user.email)
    assert await house.ended(user) == []
    newest = await house.log_in(user.email)
    assert [event.session_id for event in await house.ended(user)] == [f"ses_0-{user.id}00001"]
    assert await _sessions(house, user) == 100
    await house.refresh(newest.refresh_token)
    assert await _sessions(house, other) == 100


async def test_who_logs_in_many_times_at_once_keeps_about_a_hundred_sessions(house: House) -> None:
    user = await _with_older_sessions(house, 250)
    came = await asyncio.gather(*(house.log_in(user.email) for _ in range(8)))
    last = await house.log_in(user.email)
    assert await _sessions(house, user) == 100
    assert len({event.session_id for event in await house.ended(user)}) == len(await house.ended(user)) == 159
    for session in (*came, last):
        await house.refresh(session.refresh_token)


async def _sessions(house: House, user: user_pb2.User) -> int:
    return len(await house.database.fetch("SELECT FROM sessions WHERE user_id = $1", user.id))


async def test_a_user_with_very_many_sessions_can_be_suspended(house: House) -> None:
    user = await _with_older_sessions(house, 20000)
    await house.suspend(user)
    assert len(await house.ended(user)) == 20000
    await house.database.execute("DELETE FROM outbox WHERE subject LIKE 'session.%'")
