"""The user service behind its interceptors, with real Postgres and NATS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import argon2
import grpc
import jwt
import pytest
from google.type import date_pb2
from user.v1 import user_pb2

from services.user.admin import FirstAdmin
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import reason, trailers
from tests.integration.users import PASSWORD, House, claims, open_house, person, refused


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("user"), nats_url, certificates) as opened:
        yield opened


async def test_a_new_user_is_a_customer_whose_events_count_from_one(house: House) -> None:
    user = await house.sign_up(display_name="  Ada Byron ", address="1 Square\nLondon")
    assert (user.display_name, user.address, list(user.roles)) == ("Ada Byron", "1 Square\nLondon", ["customer"])
    assert (user.state, user.etag) == (user_pb2.User.ACTIVE, "1")
    [event] = await house.events(user.id)
    assert (event.user_id, event.sequence, event.display_name, event.country) == (user.id, 1, "Ada Byron", "GB")
    assert event.date_of_birth == user.date_of_birth


async def test_signing_up_answers_201_with_the_users_path(house: House) -> None:
    call = house.users_as().CreateUser(person())
    user = await call
    headers = dict(await call.initial_metadata())
    assert (headers["x-http-code"], headers["location"]) == ("201", f"/api/v1/users/{user.id}")


async def test_an_address_signs_up_once_without_regard_to_case(house: House) -> None:
    user = await house.sign_up()
    error = await refused(house.sign_up(email=user.email.upper()))
    assert (error.code(), reason(error)) == (grpc.StatusCode.ALREADY_EXISTS, "EMAIL_ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"country": "ZZ"}, "UNKNOWN_COUNTRY"),
        ({"country": "gb"}, "INVALID_REQUEST"),
        ({"date_of_birth": date_pb2.Date(year=1990, month=2, day=30)}, "INVALID_DATE_OF_BIRTH"),
        ({"date_of_birth": date_pb2.Date(year=1990)}, "INVALID_DATE_OF_BIRTH"),
        ({"date_of_birth": date_pb2.Date(year=2999, month=1, day=1)}, "INVALID_DATE_OF_BIRTH"),
        ({"date_of_birth": None}, "INVALID_REQUEST"),
        ({"display_name": "Ada\u0000Byron"}, "INVALID_REQUEST"),
        ({"display_name": " \t "}, "INVALID_REQUEST"),
        ({"password": "eleven char"}, "INVALID_REQUEST"),
        ({"email": "nobody"}, "INVALID_REQUEST"),
    ],
)
async def test_a_person_who_cannot_be_is_refused(house: House, fields: dict[str, Any], expected: str) -> None:
    error = await refused(house.sign_up(**fields))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, expected)


async def test_a_login_in_any_case_gives_tokens_that_name_user_session_and_roles(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email.upper())
    assert (session.token_type, session.expires_in) == ("Bearer", 600)
    said = claims(session)
    assert (said["sub"], said["roles"], said["sid"][:4]) == (user.id, ["customer"], "ses_")
    assert said["exp"] - said["iat"] == 600
    header = jwt.get_unverified_header(session.access_token)
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")


async def test_a_wrong_password_and_an_unknown_address_are_refused_alike(house: House) -> None:
    user = await house.sign_up()
    wrong = await refused(house.log_in(user.email, "wrong"))
    unknown = await refused(house.log_in("nobody@example.com"))
    assert reason(wrong) == reason(unknown) == "INVALID_CREDENTIALS"
    assert (wrong.code(), wrong.details()) == (unknown.code(), unknown.details())
    assert trailers(wrong)["www-authenticate"] == "Bearer"


async def test_an_address_that_cannot_be_looked_up_is_a_bad_request(house: House) -> None:
    error = await refused(house.log_in("ada\u0000@example.com"))
    assert reason(error) == "INVALID_REQUEST"


async def test_a_password_hashed_with_other_parameters_is_hashed_anew_at_login(house: House) -> None:
    user = await house.sign_up()
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await house.database.execute("UPDATE users SET password_hash = $2 WHERE id = $1", user.id, weak)
    await house.log_in(user.email)
    stored = await house.users.credentials(user.email)
    assert stored is not None
    assert not house.passwords.outdated(stored.password_hash)
    await house.log_in(user.email)


async def test_an_update_changes_what_its_mask_names_and_tells_who_the_user_is_now(house: House) -> None:
    user = await house.sign_up()
    moved = await house.update(user, "address", "country", country="DE", address="Unter den Linden 1", display_name="X")
    assert (moved.country, moved.address, moved.display_name, moved.etag) == (
        "DE",
        "Unter den Linden 1",
        "Ada Byron",
        "2",
    )
    await house.update(user, "address", address="")
    assert [(event.sequence, event.country) for event in await house.events(user.id)] == [(1, "GB"), (2, "DE")]


async def test_an_update_without_a_mask_changes_what_is_set(house: House) -> None:
    user = await house.sign_up(address="1 Square")
    updated = await house.update(user, display_name="Ada Lovelace")
    assert (updated.display_name, updated.address) == ("Ada Lovelace", "1 Square")
    assert (await house.update(user)).etag == updated.etag


async def test_a_star_replaces_the_whole_profile(house: House) -> None:
    user = await house.sign_up(address="1 Square")
    updated = await house.update(user, "*", display_name="Ada Lovelace", country="DE", date_of_birth=user.date_of_birth)
    assert (updated.display_name, updated.address, list(updated.roles)) == ("Ada Lovelace", "", ["customer"])
    assert reason(await refused(house.update(user, "*", country="DE", date_of_birth=user.date_of_birth))) == (
        "INVALID_REQUEST"
    )


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("email", {}, "INVALID_UPDATE_MASK"),
        ("date_of_birth.year", {}, "INVALID_UPDATE_MASK"),
        ("country", {}, "UNKNOWN_COUNTRY"),
        ("date_of_birth", {}, "INVALID_DATE_OF_BIRTH"),
        ("roles", {"roles": ["customer", "admin"]}, "ADMIN_ONLY_FIELD"),
        ("state", {"state": user_pb2.User.ACTIVE}, "ADMIN_ONLY_FIELD"),
        ("address", {"etag": "7"}, "ETAG_MISMATCH"),
    ],
)
async def test_an_update_that_may_not_be_is_refused(
    house: House, path: str, fields: dict[str, Any], expected: str
) -> None:
    user = await house.sign_up()
    assert reason(await refused(house.update(user, path, **fields))) == expected


async def test_an_admin_gives_no_unknown_role_and_no_unknown_state(house: House) -> None:
    user = await house.sign_up()
    admin: dict[str, Any] = {"by": ("usr_admin", "admin"), "user_id": user.id}
    assert reason(await refused(house.update(user, "roles", roles=["king"], **admin))) == "UNKNOWN_ROLE"
    assert reason(await refused(house.update(user, "state", **admin))) == "INVALID_REQUEST"


async def test_two_updates_of_one_version_do_not_both_win(house: House) -> None:
    user = await house.sign_up()
    answers = await asyncio.gather(
        *(house.update(user, "address", address=f"{number} Square", etag="1") for number in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, user_pb2.User) for answer in answers) == 1


async def test_a_profile_is_shown_to_its_user_officers_and_admins_only(house: House) -> None:
    user = await house.sign_up()
    for who in ((user.id,), ("usr_officer", "officer"), ("usr_admin", "admin")):
        assert (await house.users_as(*who).GetUser(user_pb2.GetUserRequest(user_id=user.id))).id == user.id
    assert (await house.users_as(user.id).GetUser(user_pb2.GetUserRequest(user_id="me"))).id == user.id
    stranger = house.users_as("usr_stranger", "customer")
    assert reason(await refused(stranger.GetUser(user_pb2.GetUserRequest(user_id=user.id)))) == "NOT_THE_OWNER"
    assert reason(await refused(stranger.GetUser(user_pb2.GetUserRequest(user_id="usr_none")))) == "USER_NOT_FOUND"
    officer = ("usr_officer", "officer")
    assert reason(await refused(house.update(user, "address", by=officer, user_id=user.id))) == "NOT_THE_OWNER"


async def test_all_users_are_listed_newest_first_page_by_page(house: House) -> None:
    older, newer = await house.sign_up(), await house.sign_up()
    stub = house.users_as("usr_admin", "admin")
    first = await stub.ListUsers(user_pb2.ListUsersRequest(page_size=1))
    second = await stub.ListUsers(user_pb2.ListUsersRequest(page_size=1, page_token=first.next_page_token))
    assert [user.id for user in (*first.users, *second.users)] == [newer.id, older.id]


async def test_payment_learns_of_users_what_it_needs_and_nobody_else_does(house: House) -> None:
    user = await house.sign_up()
    request = user_pb2.BatchGetUsersRequest(user_ids=[user.id, "usr_none"])
    [summary] = (await house.asked_by("payment").BatchGetUsers(request)).users
    assert (summary.id, summary.display_name, summary.country) == (user.id, "Ada Byron", "GB")
    assert reason(await refused(house.users_as("usr_admin", "admin").BatchGetUsers(request))) == "CALLER_NOT_ALLOWED"


async def test_notification_learns_where_active_users_can_be_written_to_and_nobody_else_does(house: House) -> None:
    user, gone = await house.sign_up(), await house.sign_up()
    await house.suspend(gone)
    request = user_pb2.BatchGetContactsRequest(user_ids=[user.id, gone.id, "usr_none"])
    answer = await house.asked_by("notification").BatchGetContacts(request)
    assert list(answer.contacts) == [user_pb2.Contact(user_id=user.id, email=user.email)]
    payment = house.asked_by("payment")
    assert reason(await refused(payment.BatchGetContacts(request))) == "CALLER_NOT_ALLOWED"


async def test_document_learns_who_a_user_is_and_nobody_else_does(house: House) -> None:
    user = await house.sign_up()
    request = user_pb2.GetIdentityRequest(user_id=user.id)
    known = user_pb2.Identity(user_id=user.id, display_name="Ada Byron", date_of_birth=user.date_of_birth)
    assert await house.asked_by("document").GetIdentity(request) == known
    unknown = house.asked_by("document").GetIdentity(user_pb2.GetIdentityRequest(user_id="usr_none"))
    assert reason(await refused(unknown)) == "USER_NOT_FOUND"
    assert reason(await refused(house.asked_by("payment").GetIdentity(request))) == "CALLER_NOT_ALLOWED"


async def test_the_first_admin_is_made_once_by_all_replicas_and_keeps_their_password(house: House) -> None:
    admins = [FirstAdmin(house.users, house.passwords, "admin@example.com", PASSWORD) for _ in range(3)]
    await asyncio.gather(*(admin.sign_up() for admin in admins))
    await FirstAdmin(house.users, house.passwords, "Admin@example.com", "another password").sign_up()
    session = await house.log_in("admin@example.com")
    assert claims(session)["roles"] == ["customer", "officer", "treasurer", "admin"]


async def test_passwords_and_tokens_are_stored_nowhere(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    for table in ("users", "sessions", "outbox", "signing_keys", "audit"):
        rows = await house.database.fetch(f"SELECT {table}::text AS text FROM {table}")  # noqa: S608
        content = " ".join(row["text"] for row in rows)
        assert not any(secret in content for secret in (PASSWORD, session.refresh_token, session.access_token))


async def test_the_audit_trail_says_who_signed_up_changed_whom_logged_in_and_out_and_no_more(house: House) -> None:
    user = await house.sign_up()
    await house.update(user, "address", address="1 Square")
    await house.update(user, "address", address="1 Square")
    await house.suspend(user)
    await house.suspend(user, user_pb2.User.ACTIVE)
    await refused(house.update(user, "roles", roles=["admin"]))
    assert await house.trail(f"users/{user.id}") == [
        (user.id, "CreateUser"),
        (user.id, "UpdateUser"),
        ("usr_admin", "UpdateUser"),
        ("usr_admin", "UpdateUser"),
    ]
    session = await house.refresh((await house.log_in(user.email)).refresh_token)
    await refused(house.log_in(user.email, "wrong"))
    for _ in range(2):
        await house.log_out(user, session)
    trail = await house.trail(f"sessions/{claims(session)['sid']}")
    assert trail == [(user.id, "CreateSession"), (user.id, "DeleteSession")]


async def test_the_audit_trail_says_that_a_session_ended_because_a_refresh_token_came_twice(house: House) -> None:
    user = await house.sign_up()
    session = await house.log_in(user.email)
    await house.refresh(session.refresh_token)
    for _ in range(2):
        await refused(house.refresh(session.refresh_token))
    trail = await house.trail(f"sessions/{claims(session)['sid']}")
    assert trail == [(user.id, "CreateSession"), (user.id, "RefreshSession")]
