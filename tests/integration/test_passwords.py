"""Passwords: changed by who knows the old one, reset by who reads the user's mail."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from user.v1 import password_pb2, password_pb2_grpc, user_pb2
from user.v1.password_pb2 import PasswordEvent

from services.runtime.ids import new_id
from services.user.passwords import domain
from services.user.passwords.store import PasswordsOfUsers
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import detail, reason
from tests.integration.users import PASSWORD, House, claims, open_house, refused
from tests.waiting import eventually

NEW = "a new password of 33 characters!!"
WRONG = "00000-00000"


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("user"), nats_url, certificates) as opened:
        yield opened


async def change(house: House, user: user_pb2.User, current: str, new: str = NEW, session_id: str = "") -> None:
    request = password_pb2.ChangePasswordRequest(current_password=current, new_password=new)
    await house.passwords_as(user.id, session_id).ChangePassword(request)


async def ask(house: House, email: str) -> None:
    await house.passwords_as().RequestPasswordReset(password_pb2.RequestPasswordResetRequest(email=email))


async def reset(house: House, email: str, code: str, new: str = NEW) -> None:
    request = password_pb2.ResetPasswordRequest(email=email, code=code, new_password=new)
    await house.passwords_as().ResetPassword(request)


async def events(house: House, user: user_pb2.User) -> list[PasswordEvent]:
    """What notification is told of a user's password, while the outbox is not relayed."""
    rows = await house.database.fetch("SELECT payload FROM outbox WHERE subject LIKE 'password.%' ORDER BY position")
    told = [PasswordEvent.FromString(row["payload"]) for row in rows]
    return [event for event in told if event.user_id == user.id]


async def asked_for(house: House, reset_id: str) -> password_pb2.PasswordReset:
    """A reset, as notification sees it."""
    stub: password_pb2_grpc.PasswordServiceAsyncStub = password_pb2_grpc.PasswordServiceStub(
        house.peers["notification"].user()
    )
    return await stub.GetPasswordReset(password_pb2.GetPasswordResetRequest(reset_id=reset_id))


async def code_for(house: House, user: user_pb2.User) -> str:
    """Asks for a reset, and reads the mail."""
    await ask(house, user.email)
    mailed = await asked_for(house, (await events(house, user))[-1].id)
    assert (mailed.user_id, mailed.email) == (user.id, user.email)
    return mailed.code


async def reasons(*calls: Any) -> Counter[str]:
    """What became of calls made at once."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(reason(one) if isinstance(one, grpc.aio.AioRpcError) else "" for one in answers)


async def test_whoever_knows_the_old_password_sets_a_new_one_and_only_that_works_then(house: House) -> None:
    user = await house.sign_up()
    await change(house, user, PASSWORD)
    assert reason(await refused(house.log_in(user.email))) == "INVALID_CREDENTIALS"
    await house.log_in(user.email, NEW)
    assert [event.kind for event in await events(house, user)] == [PasswordEvent.CHANGED]
    assert (await house.trail(f"users/{user.id}"))[-1] == (user.id, "ChangePassword")


async def test_a_change_ends_all_sessions_but_the_one_that_made_it(house: House) -> None:
    user, bystander = await house.sign_up(), await house.sign_up()
    mine, *others = [await house.log_in(user.email) for _ in range(3)]
    unaffected = await house.log_in(bystander.email)
    await change(house, user, PASSWORD, session_id=claims(mine)["sid"])
    assert {event.session_id for event in await house.ended(user)} == {claims(one)["sid"] for one in others}
    for one in others:
        assert reason(await refused(house.refresh(one.refresh_token))) == "INVALID_REFRESH_TOKEN"
    for one in (mine, unaffected):
        await house.refresh(one.refresh_token)


async def test_a_wrong_current_password_changes_nothing_and_counts_as_no_failed_log_in(house: House) -> None:
    user = await house.sign_up()
    error = await refused(change(house, user, "wrong"))
    assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSWORD")
    for _ in range(2):
        await refused(change(house, user, "wrong"))
    await refused(house.log_in(user.email, "wrong"))
    for key, failures in ((domain.changes_of(user.id), 3), (domain.account(user.email), 1)):
        row = await house.database.fetchrow("SELECT failures FROM attempts WHERE key = $1", key)
        assert row and row["failures"] == failures
    await house.log_in(user.email)
    assert await events(house, user) == []


@pytest.mark.parametrize("new", [PASSWORD, "too short"])
async def test_the_same_password_and_a_short_one_are_refused_as_new_ones(house: House, new: str) -> None:
    user = await house.sign_up()
    error = await refused(change(house, user, PASSWORD, new))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [one.field for one in detail(error, error_details_pb2.BadRequest()).field_violations] == ["newPassword"]
    await house.log_in(user.email)


async def test_of_several_changes_at_once_one_is_made(house: House) -> None:
    user = await house.sign_up()
    became = await reasons(*(change(house, user, PASSWORD, f"{NEW} {number}") for number in range(4)))
    assert became == {"": 1, "WRONG_PASSWORD": 3}
    assert len(await events(house, user)) == 1


async def test_whoever_logs_in_with_the_old_password_while_it_is_changed_gets_no_session(house: House) -> None:
    user = await house.sign_up()
    async with house.outbox.transaction() as changing:
        await changing.execute("UPDATE users SET password_hash = 'another' WHERE id = $1", user.id)
        entering = asyncio.create_task(house.log_in(user.email))
        await eventually(house.somebody_waits)
    assert reason(await refused(entering)) == "INVALID_CREDENTIALS"
    assert await house.database.fetch("SELECT FROM sessions WHERE user_id = $1", user.id) == []


async def test_a_mailed_code_sets_a_new_password_once_and_ends_all_sessions(house: House) -> None:
    user = await house.sign_up()
    sessions = [await house.log_in(user.email) for _ in range(2)]
    code = await code_for(house, user)
    await reset(house, user.email, code)
    assert reason(await refused(house.log_in(user.email))) == "INVALID_CREDENTIALS"
    assert {event.session_id for event in await house.ended(user)} == {claims(one)["sid"] for one in sessions}
    for one in sessions:
        assert reason(await refused(house.refresh(one.refresh_token))) == "INVALID_REFRESH_TOKEN"
    await house.log_in(user.email, NEW)
    again = await refused(reset(house, user.email, code, f"{NEW}!"))
    assert (again.code(), reason(again)) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_RESET_CODE")
    kinds = [event.kind for event in await events(house, user)]
    assert kinds == [PasswordEvent.RESET_REQUESTED, PasswordEvent.CHANGED]
    assert (await house.trail(f"users/{user.id}"))[-1] == (user.id, "ResetPassword")


async def test_whoever_is_locked_out_resets_the_password_and_is_in(house: House) -> None:
    user = await house.sign_up()
    await house.database.execute(
        "INSERT INTO attempts VALUES ($1, 100, now() + interval '30 minutes')", domain.account(user.email)
    )
    assert reason(await refused(house.log_in(user.email))) == "TOO_MANY_ATTEMPTS"
    await reset(house, user.email, await code_for(house, user))
    await house.log_in(user.email, NEW)


async def test_a_code_is_taken_however_it_and_the_address_are_written(house: House) -> None:
    for write in (str.lower, lambda code: code.replace("-", ""), lambda code: f" {code.replace('-', ' - ')} "):
        user = await house.sign_up(email=f"{new_id('Ada')}@Example.com")
        await reset(house, user.email.swapcase(), write(await code_for(house, user)))
        await house.log_in(user.email, NEW)


async def guessed(house: House, email: str, times: int) -> None:
    """Has so many wrong codes be sent."""
    update = "UPDATE password_resets SET wrong_codes = wrong_codes + $2 WHERE account = $1"
    await house.database.execute(update, domain.account(email), times)


async def test_whoever_sends_wrong_codes_for_somebody_does_not_keep_them_from_sending_the_right_one(
    house: House,
) -> None:
    user = await house.sign_up()
    code = await code_for(house, user)
    assert await reasons(*(reset(house, user.email, WRONG) for _ in range(20))) == {"INVALID_RESET_CODE": 20}
    await reset(house, user.email, code)


async def test_after_a_hundred_wrong_codes_at_once_or_not_the_right_one_does_not_work(house: House) -> None:
    user, other = await house.sign_up(), await house.sign_up()
    code = await code_for(house, user)
    await guessed(house, user.email, 98)
    assert reason(await refused(reset(house, user.email, WRONG))) == "INVALID_RESET_CODE"
    await reset(house, user.email, code)  # the hundredth guess is right

    code = await code_for(house, other)
    await guessed(house, other.email, 95)
    assert await reasons(*(reset(house, other.email, WRONG) for _ in range(12))) == {"INVALID_RESET_CODE": 12}
    assert reason(await refused(reset(house, other.email, code))) == "INVALID_RESET_CODE"
    assert reason(await refused(asked_for(house, (await events(house, other))[-1].id))) == "PASSWORD_RESET_NOT_FOUND"
    await reset(house, other.email, await code_for(house, other))


async def test_of_many_uses_of_a_code_at_once_one_sets_the_password(house: House) -> None:
    user = await house.sign_up()
    code = await code_for(house, user)
    became = await reasons(*(reset(house, user.email, code, f"{NEW} {number}") for number in range(5)))
    assert became == {"": 1, "INVALID_RESET_CODE": 4}
    assert len(await events(house, user)) == 2


async def test_a_newer_code_replaces_the_one_before(house: House) -> None:
    user = await house.sign_up()
    first, second = await code_for(house, user), await code_for(house, user)
    assert reason(await refused(reset(house, user.email, first))) == "INVALID_RESET_CODE"
    before, _ = await events(house, user)
    assert reason(await refused(asked_for(house, before.id))) == "PASSWORD_RESET_NOT_FOUND"
    await reset(house, user.email, second)


async def test_an_expired_code_does_not_work_and_is_swept(house: House) -> None:
    user = await house.sign_up()
    code = await code_for(house, user)
    [event] = await events(house, user)
    age = "UPDATE password_resets SET expire_time = now() - interval '1 s' WHERE id = $1"
    await house.database.execute(age, event.id)
    assert reason(await refused(reset(house, user.email, code))) == "INVALID_RESET_CODE"
    assert reason(await refused(asked_for(house, event.id))) == "PASSWORD_RESET_NOT_FOUND"
    await PasswordsOfUsers(house.database, house.outbox).sweep().batch()
    assert await house.database.fetch("SELECT FROM password_resets WHERE id = $1", event.id) == []


async def test_a_changed_password_ends_the_code_that_was_asked_for(house: House) -> None:
    user = await house.sign_up()
    code = await code_for(house, user)
    await change(house, user, PASSWORD)
    assert reason(await refused(reset(house, user.email, code, f"{NEW}!"))) == "INVALID_RESET_CODE"


async def test_the_password_in_force_is_refused_as_the_new_one_and_the_code_goes_on_working(house: House) -> None:
    user = await house.sign_up()
    code = await code_for(house, user)
    for _ in range(6):
        error = await refused(reset(house, user.email, code, PASSWORD))
        assert [one.field for one in detail(error, error_details_pb2.BadRequest()).field_violations] == ["newPassword"]
    await reset(house, user.email, code)


async def test_a_user_gets_three_mails_in_a_quarter_of_an_hour_and_the_third_code_goes_on_working(house: House) -> None:
    user = await house.sign_up()
    codes = [await code_for(house, user) for _ in range(5)]
    assert codes[2] == codes[3] == codes[4] and len(set(codes)) == 3
    assert len(await events(house, user)) == 3
    await reset(house, user.email, codes[2])


async def test_asking_for_nobody_is_answered_alike_and_tells_nobody(house: House) -> None:
    count = "SELECT count(*) AS n FROM outbox"
    user, nobody = await house.sign_up(), f"{new_id('nobody')}@example.com"
    await house.suspend(user)
    before = await house.database.fetchrow(count)
    for email in (nobody, user.email):
        call = house.passwords_as().RequestPasswordReset(password_pb2.RequestPasswordResetRequest(email=email))
        await call
        assert dict(await call.initial_metadata())["x-http-code"] == "204"
        assert reason(await refused(reset(house, email, WRONG))) == "INVALID_RESET_CODE"
        row = await house.database.fetchrow(
            "SELECT id, user_id, wrong_codes FROM password_resets WHERE account = $1", domain.account(email)
        )
        assert row and (row["user_id"], row["wrong_codes"]) == ("", 1)
        assert reason(await refused(asked_for(house, row["id"]))) == "PASSWORD_RESET_NOT_FOUND"
    assert await house.database.fetchrow(count) == before


async def test_a_user_who_is_suspended_after_asking_gets_no_code_and_cannot_use_it(house: House) -> None:
    user = await house.sign_up()
    code = await code_for(house, user)
    await house.suspend(user)
    assert reason(await refused(reset(house, user.email, code))) == "INVALID_RESET_CODE"
    assert reason(await refused(asked_for(house, (await events(house, user))[-1].id))) == "PASSWORD_RESET_NOT_FOUND"


async def test_neither_a_code_nor_a_password_is_in_the_database(house: House) -> None:
    user = await house.sign_up()
    first = await code_for(house, user)
    await reset(house, user.email, first)
    await change(house, user, NEW, f"{NEW}!")
    second = await code_for(house, user)
    tables = await house.database.fetch("SELECT relname FROM pg_stat_user_tables")
    rows = [row["text"] for table in tables for row in await house.database.fetch(_AS_TEXT.format(table["relname"]))]
    secrets = [first, second, first.replace("-", ""), second.replace("-", ""), PASSWORD, NEW]
    written = [form for secret in secrets for form in (secret, secret.encode().hex())]
    assert not [form for form in written if any(form in row for row in rows)]
    assert any(user.email in row for row in rows)  # so rows are what they should be


_AS_TEXT = "SELECT {0}::text AS text FROM {0}"
