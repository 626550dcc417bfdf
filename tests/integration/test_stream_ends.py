"""How status streams end: limits, sessions, readers that do not read, and servers that stop."""

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from payment.v1 import payment_pb2, payment_pb2_grpc
from structlog.testing import capture_logs

from services.runtime import revocations
from services.runtime.ids import new_id
from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, open_house, refusal
from tests.integration.serving import detail, reason, trailers
from tests.integration.streaming import Browser, cancel, end_session, feed, in_review, nobody_watches, status, typed
from tests.waiting import eventually


@pytest.fixture(scope="module")
def database_url(fresh_database: FreshDatabase) -> str:
    return fresh_database("payment")


@pytest.fixture(scope="module")
async def house(database_url: str, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    limits = {"streams_per_user": 4, "streams": 6}
    async with open_house(database_url, nats_url, certificates, **limits, write_seconds=0.5) as opened:
        yield opened


@pytest.fixture(autouse=True)
async def no_stream_is_left_open(house: House) -> AsyncIterator[None]:
    house.kind_neighbours()
    yield
    await nobody_watches(house)


async def test_a_user_may_have_so_many_streams_and_more_when_one_has_ended_however(house: House) -> None:
    payer, payment = await in_review(house)
    browsers = [status(house, payer, payment.id), feed(house, payer), feed(house, payer)]
    for browser in browsers:
        await browser.next("retry")
    watching = typed(house, payer, payment.id)
    await watching.read()
    for call in (status(house, payer, payment.id).call, feed(house, payer).call, typed(house, payer, payment.id)):
        error = await refusal(call.read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        assert int(trailers(error)["retry-after"]) >= 1
    other = feed(house, payment.payee_id)
    await other.next("retry")  # somebody else's count for themselves
    other.call.cancel()

    browsers[1].call.cancel()  # the client goes
    await cancel(house, payer, payment.id)  # the payment is final
    assert (await watching.read()).sequence == 2
    assert await watching.read() is grpc.aio.EOF

    async def only_one_is_left() -> bool:
        return house.hub.watchers == 1

    await eventually(only_one_is_left)
    for _ in range(3):
        browsers.append(feed(house, payer))
        await browsers[-1].next("retry")
    for browser in browsers:
        browser.call.cancel()


async def test_a_process_has_so_many_streams_of_all_users_and_more_when_one_has_ended(house: House) -> None:
    payer, payment = await in_review(house)
    browsers = [feed(house, user) for user in (payer, payment.payee_id) for _ in range(3)]
    for browser in browsers:
        await browser.next("retry")
    other = payment.payee_id
    for call in (status(house, other, payment.id).call, feed(house, other).call, typed(house, other, payment.id)):
        error = await refusal(call.read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "STREAMS_BUSY")
        assert int(trailers(error)["retry-after"]) >= 1
    browsers[0].call.cancel()

    async def there_is_room() -> bool:
        return house.hub.watchers == 5

    await eventually(there_is_room)
    browsers.append(feed(house, other))
    await browsers[-1].next("retry")
    for browser in browsers:
        browser.call.cancel()


async def test_a_stream_ends_when_its_session_does_and_none_is_opened_then(house: House) -> None:
    payer, payment = await in_review(house)
    session = new_id("ses")
    browsers = [
        status(house, payer, payment.id, x_user_session=session),
        feed(house, payer, x_user_session=session),
        feed(house, payer, x_user_session=new_id("ses")),
    ]
    for browser in browsers:
        await browser.next()
    watching = typed(house, payer, payment.id, x_user_session=session)
    await watching.read()
    await end_session(house, session)
    for browser in browsers[:2]:
        error = json.loads((await browser.next("error"))["data"])
        assert (error["code"], error["details"][0]["reason"]) == (16, "SESSION_ENDED")
        assert await browser.rest() == b""
    error = await refusal(watching.read())
    assert (error.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")
    for call in (
        status(house, payer, payment.id, x_user_session=session).call,
        feed(house, payer, x_user_session=session).call,
        typed(house, payer, payment.id, x_user_session=session),
    ):
        error = await refusal(call.read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")
    await cancel(house, payer, payment.id)
    assert (await browsers[2].next())["id"] == "2"  # another session of the user goes on
    browsers[2].call.cancel()


async def test_a_stream_ends_when_its_api_key_or_what_its_user_has_of_others_does_and_a_new_one_may_be_opened(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "ANEW_SECONDS", 0.2)
    payer, payment = await in_review(house)
    key = new_id("key")
    browsers = {key: feed(house, payer, x_user_session=key), payer: feed(house, payer)}
    for browser in browsers.values():
        await browser.next()
    for ends, browser in browsers.items():
        await end_session(house, ends)
        assert json.loads((await browser.next("error"))["data"])["details"][0]["reason"] == "SESSION_ENDED"
        assert await browser.rest() == b""

    async def one_is_opened(**credential: str) -> bool:
        watching = typed(house, payer, payment.id, 0, **credential)
        try:
            return bool((await watching.read()).sequence)
        except grpc.aio.AioRpcError as error:
            assert reason(error) == "SESSION_ENDED"
            return False
        finally:
            watching.cancel()

    await eventually(one_is_opened)
    await eventually(partial(one_is_opened, x_user_session=key))


async def test_the_log_knows_how_a_stream_ended_though_for_grpc_it_ended_well(house: House) -> None:
    payer, payment = await in_review(house)
    session = new_id("ses")
    browsers = [
        status(house, payer, payment.id, x_user_session=session),
        feed(house, payer, x_user_session=session),
        status(house, payer, payment.id),
    ]
    for browser in browsers:
        await browser.next()
    with capture_logs() as logs:
        await end_session(house, session)
        await cancel(house, payer, payment.id)
        for browser in browsers:
            await browser.rest()

        async def all_are_logged() -> bool:
            return len(streams()) == 3

        def streams() -> list[str]:
            return sorted(line["outcome"] for line in logs if "Stream" in line.get("rpc", ""))

        await eventually(all_are_logged)
    assert streams() == ["OK", "SESSION_ENDED", "SESSION_ENDED"]
    assert {line["log_level"] for line in logs} == {"info"}  # that somebody logs out is nobody's failure


async def test_a_reader_that_does_not_read_is_cut_off_and_its_place_is_free(house: House) -> None:
    user = await with_thousands_of_events(house)
    small = house.edge.another(("grpc.http2.bdp_probe", 0))  # what is on the way is 64 KiB then
    stub = payment_pb2_grpc.PaymentServiceStub(small.user(user, "customer"))
    asleep = [Browser(stub.StreamPayments(payment_pb2.StreamPaymentsRequest())) for _ in range(4)]
    for browser in asleep:
        await browser.next("retry")  # and nothing after that
    assert house.hub.watchers == 4
    await nobody_watches(house)
    awake = feed(house, user)
    assert await awake.ids(3000) == list(range(1, 3001))
    awake.call.cancel()
    error = await refusal(asleep[0].ids(3001))
    assert reason(error) == "SLOW_READER"
    await small.close()


async def with_thousands_of_events(house: House) -> str:
    """A user with 3,000 events of 1 KB, put straight into the database: more than what is on the way can hold."""
    payer, payee = await house.user_with(10), await house.user_with(0)
    accounts = [(await house.account(user)).id for user in (payer, payee)]
    await house.database.execute(
        """
        INSERT INTO payments (id, payer_id, payee_id, payer_account_id, payee_account_id, currency_code, amount,
            description, state, state_reason, risk_score, sequence, create_time, update_time)
        SELECT $1 || repeat('x', 500) || number, $1, $2, $3, $4, 'EUR', 1,
            '', 'DECLINED', 'RISK_TOO_HIGH', 0, 1, now(), now()
        FROM generate_series(1, 3000) AS number""",
        payer,
        payee,
        *accounts,
    )
    return payer


async def test_a_server_that_stops_tells_clients_when_to_come_back(
    database_url: str, house: House, nats_url: str, certificates: Path
) -> None:
    payer, payment = await in_review(house)
    async with open_house(database_url, nats_url, certificates) as stopping:
        one, all_of_user = status(stopping, payer, payment.id), feed(stopping, payer)
        await one.next()
        await all_of_user.next()
        watching = typed(stopping, payer, payment.id)
        await watching.read()
        stopping.hub.end()
        for browser in (one, all_of_user):
            assert 100 <= int((await browser.next("retry"))["retry"]) <= 400
            assert await browser.rest() == b""  # no end: there is more
        error = await refusal(watching.read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "STREAM_ENDED")
        delay = detail(error, error_details_pb2.RetryInfo()).retry_delay
        assert 0 < delay.seconds + delay.nanos / 1e9 < 1
    await cancel(house, payer, payment.id)
    later = status(house, payer, payment.id, last_event_id="1")
    assert await later.ids(1) == [2]
    await later.rest()
