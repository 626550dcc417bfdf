"""Status streams as clients open them: where they begin and go on, and what they tell whom in which order."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from payment.v1 import payment_pb2

from services.runtime import migrate
from services.runtime.ids import new_id
from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, open_house, refusal
from tests.integration.serving import reason
from tests.integration.streaming import cancel, feed, feed_ids, in_review, nobody_watches, status, typed


@pytest.fixture(scope="module")
def database_url(fresh_database: FreshDatabase) -> str:
    return fresh_database("payment")


@pytest.fixture(scope="module")
async def house(database_url: str, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(database_url, nats_url, certificates) as opened:
        yield opened


@pytest.fixture(scope="module")
async def other_house(database_url: str, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    """Another replica."""
    async with open_house(database_url, nats_url, certificates) as opened:
        yield opened


@pytest.fixture(autouse=True)
async def no_stream_is_left_open(house: House) -> AsyncIterator[None]:
    house.kind_neighbours()
    yield
    await nobody_watches(house)


@pytest.mark.parametrize("after", range(4))
async def test_a_stream_goes_on_after_any_event_whichever_way_it_is_asked(house: House, after: int) -> None:
    payer, payment = await in_review(house)
    officer = house.officer()
    await officer.ApprovePayment(payment_pb2.ApprovePaymentRequest(payment_id=payment.id))
    await house.settled(payer, payment.id)
    left = list(range(after + 1, 4))
    by_header = await status(house, payer, payment.id, last_event_id=str(after)).rest()
    by_query = await status(house, payer, payment.id, after).rest()
    both = await status(house, payer, payment.id, after=3 - after, last_event_id=str(after)).rest()
    for text in (by_header, by_query, both):
        assert [int(line[4:]) for line in text.decode().split("\n") if line.startswith("id: ")] == left
        assert text.endswith(b"event: end\ndata: {}\n\n") == bool(left)
    assert [event.sequence async for event in typed(house, payer, payment.id, after)] == left
    assert await feed_ids(house, payer, after, 3 - after) == left


async def test_what_was_refunded_after_it_was_final_is_told_to_those_who_come_back(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 2)
    await house.settled(payer, payment.id)
    await house.pays(payee, idempotency_key=new_id("key")).RefundPayment(
        payment_pb2.RefundPaymentRequest(payment_id=payment.id)
    )
    assert [event.sequence async for event in typed(house, payer, payment.id)] == [1, 2, 3]
    assert [event.sequence async for event in typed(house, payer, payment.id, 2)] == [3]


async def test_the_stream_of_all_payments_tells_payer_and_payee_and_nobody_else(house: House) -> None:
    payer, payee, stranger = await house.user_with(10), await house.user_with(0), await house.user_with(0)
    browsers = [feed(house, user) for user in (payer, payee, stranger)]
    for browser in browsers:
        await browser.next("retry")
    payment = await house.pay(payer, payee, 1)
    for browser in browsers[:2]:
        for position, state in ((1, "AUTHORIZED"), (2, "SETTLED")):
            event = await browser.next()
            told = json.loads(event["data"])
            assert (event["id"], told["paymentId"], told["state"]) == (str(position), payment.id, state)
    await house.pay(payee, payer, 1)
    assert [await browser.ids(2) for browser in browsers[:2]] == [[3, 4]] * 2
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(browsers[2].next(), 0.1)
    for browser in browsers:
        browser.call.cancel()


@pytest.mark.parametrize("last_event_id", ["two", "-1", "+1", "3", "1.0", "%D9%A3", "9" * 19, "9" * 200, " 1 x"])
async def test_an_id_that_was_never_given_out_is_refused(house: House, last_event_id: str) -> None:
    payer, payment = await in_review(house)
    for call in (
        status(house, payer, payment.id, last_event_id=last_event_id).call,
        feed(house, payer, last_event_id=last_event_id).call,
    ):
        error = await refusal(call.read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_LAST_EVENT_ID")


async def test_a_sequence_beyond_the_last_is_refused(house: House) -> None:
    payer, payment = await in_review(house)
    for call in (
        status(house, payer, payment.id, 2).call,
        feed(house, payer, 2).call,
        typed(house, payer, payment.id, 2),
    ):
        error = await refusal(call.read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_a_change_on_another_replica_is_told_at_once(house: House, other_house: House) -> None:
    payer, payment = await in_review(house)
    one, other = status(house, payer, payment.id), status(other_house, payer, payment.id)
    both = feed(other_house, payer)
    assert await one.ids(1) == await other.ids(1) == await both.ids(1) == [1]
    began = asyncio.get_running_loop().time()
    await cancel(house, payer, payment.id)
    assert await one.ids(1) == await other.ids(1) == await both.ids(1) == [2]
    assert asyncio.get_running_loop().time() - began < 2.5  # unasked they look every 3 s
    both.call.cancel()
    assert (await one.rest()) == (await other.rest()) == b"event: end\ndata: {}\n\n"


async def test_a_client_goes_on_at_another_replica_where_its_stream_was_cut(house: House, other_house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    browser = feed(house, payer)
    ids: list[int] = []
    for number in range(10):
        await house.pay(payer, payee, 1)
        ids += await browser.ids(1)
        browser.call.cancel()
        browser = feed((house, other_house)[number % 2], payer, last_event_id=str(ids[-1]))
    ids += await browser.ids(10)
    browser.call.cancel()
    assert ids == list(range(1, 21))


async def test_a_feed_has_the_order_of_commits_without_gaps_while_many_pay_at_once(
    house: House, other_house: House
) -> None:
    payee = await house.user_with(0)
    payers = [await house.user_with(100) for _ in range(10)]
    browsers = [feed(one, payee) for one in (house, house, other_house)]
    for browser in browsers:
        await browser.next("retry")
    at_once = (one.pay(payer, payee, 1) for payer in payers for one in (house, other_house, house, house, other_house))
    await asyncio.gather(*at_once)
    told = [[await browser.next() for _ in range(100)] for browser in browsers]
    assert [int(event["id"]) for event in told[0]] == list(range(1, 101))
    assert told[0] == told[1] == told[2]
    sequences: dict[str, int] = {}
    for data in [json.loads(event["data"]) for event in told[0]]:
        assert data["sequence"] == sequences.get(data["paymentId"], 0) + 1
        sequences[data["paymentId"]] = data["sequence"]
    await house.require_right_books()
    for browser in browsers:
        browser.call.cancel()


async def test_only_parties_and_officers_watch_a_payment(house: House) -> None:
    payer, payment = await in_review(house)
    for call in (status(house, "usr_stranger", payment.id).call, typed(house, "usr_stranger", payment.id)):
        error = await refusal(call.read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_PARTY")
    watching: Any = house.officer().WatchPayment(payment_pb2.WatchPaymentRequest(payment_id=payment.id))
    assert (await watching.read()).payer_id == payer
    watching.cancel()


async def test_what_happened_before_there_were_positions_is_told_in_the_order_of_time(
    fresh_database: FreshDatabase, nats_url: str, certificates: Path
) -> None:
    url = fresh_database("payment")
    async with open_house(url, nats_url, certificates) as grown:
        await grown.database.execute("""
            DROP TRIGGER count_for_users ON payment_events; DROP FUNCTION count_for_users;
            DROP TABLE user_events, user_event_counts; UPDATE alembic_version SET version_num = '0003'""")
        payer, payee = await grown.user_with(10), await grown.user_with(0)
        made = []
        for _ in range(3):
            made.append((await grown.pay(payer, payee, 1)).id)
            await grown.settled(payer, made[-1])
        await grown.database.execute("DROP TABLE audit; DROP FUNCTION audit_stays")  # which is newer, too
        await asyncio.to_thread(migrate.upgrade, "payment", url)
        made.append((await grown.pay(payer, payee, 1)).id)
        browser = feed(grown, payee)
        told = [json.loads((await browser.next())["data"]) for _ in range(8)]
        browser.call.cancel()
        assert [(one["paymentId"], one["sequence"]) for one in told] == [(one, step) for one in made for step in (1, 2)]
        await grown.require_right_books()
