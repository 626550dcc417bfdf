"""Guessing passwords: how many guesses are free, who waits after them, and who does not."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from user.v1 import password_pb2, user_pb2, user_pb2_grpc

from services.runtime.ids import new_id
from services.user.passwords import domain
from services.user.passwords.domain import Limits, TooManyAttempts
from services.user.passwords.store import Attempts
from services.user.passwords.throttling import Throttle
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import detail, reason, trailers
from tests.integration.users import PASSWORD, House, open_house, refused
from tests.waiting import eventually

FREE = 5
FREE_OF_ADDRESS = 20
SLOWER = 60
"""Waits are minutes here, not seconds, so that none is over before a slow machine has seen it."""


class Slow(Limits):
    """As in production, but for that."""

    @property
    def waits(self) -> list[timedelta]:
        return [SLOWER * wait for wait in Limits(self.failures_per_account).waits]


LIMITS = Slow(FREE, FREE_OF_ADDRESS)


@pytest.fixture(scope="module")
def url(fresh_database: FreshDatabase) -> str:
    return fresh_database("user")


@pytest.fixture(scope="module")
async def house(url: str, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(url, nats_url, certificates, LIMITS) as opened:
        yield opened


async def log_in(house: House, email: str, password: str, address: str = "") -> user_pb2.Session:
    """Logs in from an address that is used for this alone, unless one is named."""
    came_from = address or f"2001:db8:{new_id('')[-4:]}:{new_id('')[-4:]}::1"
    stub: user_pb2_grpc.SessionServiceAsyncStub = user_pb2_grpc.SessionServiceStub(
        house.peers["edge"].user(x_forwarded_for=f"6.6.6.6, {came_from}")
    )
    return await stub.CreateSession(user_pb2.CreateSessionRequest(email=email, password=password))


async def guess(house: House, email: str, address: str = "") -> grpc.aio.AioRpcError:
    return await refused(log_in(house, email, "wrong", address))


async def later(house: House, seconds: float, key: bytes) -> None:
    """Has that much time pass for what is counted under a key."""
    shift = "UPDATE attempts SET expire_time = expire_time - $2::float8 * interval '1 s' WHERE key = $1"
    await house.database.execute(shift, key, seconds)


async def failures(house: House, key: bytes) -> int:
    row = await house.database.fetchrow("SELECT failures FROM attempts WHERE key = $1 AND expire_time > now()", key)
    return row["failures"] if row else 0


def minutes(error: grpc.aio.AioRpcError) -> int:
    """For how long somebody has to wait."""
    return math.ceil(int(trailers(error)["retry-after"]) / 60)


async def spent(house: House, email: str) -> None:
    """Uses all free guesses of an account up."""
    for _ in range(FREE):
        assert reason(await guess(house, email)) == "INVALID_CREDENTIALS"


async def test_after_five_wrong_passwords_even_the_right_one_has_to_wait_and_is_taken_then(house: House) -> None:
    user = await house.sign_up()
    await spent(house, user.email)
    error = await refused(log_in(house, user.email, PASSWORD))
    assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert minutes(error) == 1
    assert detail(error, error_details_pb2.RetryInfo()).retry_delay.seconds == int(trailers(error)["retry-after"])
    await later(house, SLOWER, domain.account(user.email))
    await log_in(house, user.email, PASSWORD)
    await spent(house, user.email)  # all are free again


async def test_the_wait_doubles_up_to_a_quarter_of_an_hour(house: House) -> None:
    email, waits = f"{new_id('x')}@example.com", []
    await spent(house, email)
    for _ in range(12):
        waits.append(minutes(await guess(house, email)))
        await later(house, SLOWER * waits[-1], domain.account(email))
        assert reason(await guess(house, email)) == "INVALID_CREDENTIALS"
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


async def test_guesses_at_a_user_and_at_nobody_are_answered_alike(house: House) -> None:
    user, nobody = (await house.sign_up()).email, f"{new_id('nobody')}@example.com"

    async def answers(email: str) -> list[tuple[object, ...]]:
        errors = [await guess(house, email) for _ in range(FREE + 2)]
        return [(error.code(), reason(error), sorted(trailers(error))) for error in errors]

    assert await answers(user) == await answers(nobody)


async def test_an_address_is_the_same_account_however_it_is_written(house: House) -> None:
    user = await house.sign_up(email=f"{new_id('Ada')}@Example.com")
    for email in (user.email, user.email.upper(), f" {user.email.lower()} ", user.email.title(), user.email):
        assert reason(await guess(house, email)) == "INVALID_CREDENTIALS"
    assert reason(await guess(house, user.email.swapcase())) == "TOO_MANY_ATTEMPTS"


async def test_of_many_guesses_at_once_at_two_replicas_no_more_than_five_are_checked(
    house: House, url: str, nats_url: str, certificates: Path
) -> None:
    email = (await house.sign_up()).email
    async with open_house(url, nats_url, certificates, LIMITS) as other:
        errors = await asyncio.gather(*(guess(one, email) for one in (house, other) for _ in range(30)))
    assert Counter(map(reason, errors)) == {"INVALID_CREDENTIALS": FREE, "TOO_MANY_ATTEMPTS": 60 - FREE}


async def test_whoever_logs_in_many_times_at_once_with_the_right_password_does_not_wait(house: House) -> None:
    user = await house.sign_up()
    for _ in range(FREE - 1):
        await guess(house, user.email)
    await asyncio.gather(*(log_in(house, user.email, PASSWORD) for _ in range(4 * FREE)))
    assert await failures(house, domain.account(user.email)) == 0


async def test_whoever_comes_while_the_last_free_attempt_is_checked_waits_for_what_becomes_of_it(house: House) -> None:
    class Asked(Attempts):
        times = 0

        async def wait(self, account: bytes, origin: bytes, per_origin: int) -> float:
            seconds = await super().wait(account, origin, per_origin)
            self.times += 1
            return seconds

    attempts, email, released = Asked(house.database), new_id("x"), asyncio.Event()
    throttle = Throttle(attempts, Slow(1, FREE_OF_ADDRESS))

    async def right() -> None:
        async with throttle.attempt(domain.account(email), "192.0.2.11"):
            await released.wait()

    async def counted() -> bool:
        return await failures(house, domain.account(email)) == 1

    async def asked() -> bool:
        return attempts.times == 4

    first = asyncio.create_task(right())
    await eventually(counted)
    others = [asyncio.create_task(right()) for _ in range(3)]
    await eventually(asked)
    released.set()
    await asyncio.gather(first, *others)


async def test_failures_are_forgotten_a_quarter_of_an_hour_after_the_last_wait(house: House) -> None:
    email = f"{new_id('x')}@example.com"
    await spent(house, email)
    await later(house, SLOWER + 15 * 60, domain.account(email))
    await spent(house, email)
    assert reason(await guess(house, email)) == "TOO_MANY_ATTEMPTS"


async def test_an_address_that_guesses_at_many_accounts_waits_until_the_quarter_of_an_hour_is_over(
    house: House,
) -> None:
    user = await house.sign_up()
    address = "192.0.2.7"
    for _ in range(FREE_OF_ADDRESS - 1):
        assert reason(await guess(house, f"{new_id('x')}@example.com", address)) == "INVALID_CREDENTIALS"
    await log_in(house, user.email, PASSWORD, address)  # does not count
    await later(house, 600, domain.origin(address))
    await guess(house, f"{new_id('x')}@example.com", address)
    error = await refused(log_in(house, user.email, PASSWORD, address))
    assert reason(error) == "TOO_MANY_ATTEMPTS"
    assert 200 < int(trailers(error)["retry-after"]) <= 300
    await log_in(house, user.email, PASSWORD, "192.0.2.8")
    await later(house, 300, domain.origin(address))
    await log_in(house, user.email, PASSWORD, address)


async def test_many_guesses_at_once_from_one_address_do_not_pass_its_limit(house: House) -> None:
    guesses = (guess(house, f"{new_id('x')}@example.com", "192.0.2.9") for _ in range(2 * FREE_OF_ADDRESS))
    reasons = Counter(map(reason, await asyncio.gather(*guesses)))
    assert reasons == {"INVALID_CREDENTIALS": FREE_OF_ADDRESS, "TOO_MANY_ATTEMPTS": FREE_OF_ADDRESS}


async def test_what_is_counted_is_kept_as_a_hash_only_and_swept_when_it_is_over(house: House) -> None:
    email = f"{new_id('x')}@example.com"
    await guess(house, email)
    rows = await house.database.fetch("SELECT attempts::text AS text FROM attempts")
    assert not [row for row in rows if email in row["text"] or email.encode().hex() in row["text"]]
    keys = [domain.account(email), domain.account(f"{email}.example")]
    await guess(house, f"{email}.example")
    await later(house, 900, keys[0])
    await Attempts(house.database).sweep().batch()
    left = await house.database.fetch("SELECT key FROM attempts WHERE key = ANY($1)", keys)
    assert [row["key"] for row in left] == keys[1:]


async def test_whoever_has_to_wait_costs_no_check_of_a_password(house: House) -> None:
    throttle, email = Throttle(Attempts(house.database), Slow(1, 3)), new_id("x")
    with pytest.raises(ValueError, match="wrong"):
        async with throttle.attempt(domain.account(email), "192.0.2.10"):
            raise ValueError("wrong")
    with pytest.raises(TooManyAttempts):
        async with throttle.attempt(domain.account(email), "192.0.2.10"):
            pytest.fail("somebody checked")
    assert await failures(house, domain.origin("192.0.2.10")) == 1


async def test_an_address_is_not_charged_for_an_attempt_that_was_not_checked(house: House) -> None:
    class Unaware(Attempts):
        """Says once that nobody waits, as it may of a failure that another replica just counts."""

        asked = 0

        async def wait(self, account: bytes, origin: bytes, per_origin: int) -> float:
            self.asked += 1
            return 0.0 if self.asked == 1 else await super().wait(account, origin, per_origin)

    email, address = new_id("x"), "192.0.2.12"
    await Attempts(house.database).count_failure(domain.account(email), Slow(1).waits)
    with pytest.raises(TooManyAttempts):
        async with Throttle(Unaware(house.database), Slow(1, 3)).attempt(domain.account(email), address):
            pytest.fail("somebody checked")
    assert await failures(house, domain.origin(address)) == 0


async def test_whoever_is_logged_in_changes_their_password_however_often_others_guess_at_it(house: House) -> None:
    user = await house.sign_up()
    await spent(house, user.email)
    assert reason(await guess(house, user.email)) == "TOO_MANY_ATTEMPTS"
    change = password_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=f"{PASSWORD}!")
    await house.passwords_as(user.id).ChangePassword(change)


async def test_whoever_is_logged_in_guesses_no_more_often_than_others_and_locks_nobody_out(house: House) -> None:
    user = await house.sign_up()
    change = password_pb2.ChangePasswordRequest(current_password="wrong", new_password=f"{PASSWORD}!")
    for _ in range(FREE):
        assert reason(await refused(house.passwords_as(user.id).ChangePassword(change))) == "WRONG_PASSWORD"
    assert reason(await refused(house.passwords_as(user.id).ChangePassword(change))) == "TOO_MANY_ATTEMPTS"
    await log_in(house, user.email, PASSWORD)


async def test_an_attempt_that_is_cut_off_counts_and_holds_up_nobody(house: House) -> None:
    throttle, email, inside = Throttle(Attempts(house.database), Slow(3, 3)), new_id("x"), asyncio.Event()

    async def hang() -> None:
        async with throttle.attempt(domain.account(email), "192.0.2.13"):
            inside.set()
            await asyncio.Event().wait()

    hanging = asyncio.create_task(hang())
    await inside.wait()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    assert await failures(house, domain.account(email)) == 1
    async with throttle.attempt(domain.account(email), "192.0.2.13"):
        pass
    assert await failures(house, domain.account(email)) == 0
