"""Refunds, with settlement only where a test asks for it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.type.money_pb2 import Money as MoneyProto
from payment.v1 import payment_pb2

from services.payment.domain import State
from tests.integration.conftest import FreshDatabase
from tests.integration.lives import PAID, made, outcome, refunded, spendable
from tests.integration.paying import House, euros, open_house, refusal
from tests.integration.serving import reason, trailers


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as opened, opened.settling_paused():
        yield opened
        await opened.require_right_books()


@pytest.fixture(autouse=True)
def kind_neighbours(house: House) -> None:
    house.kind_neighbours()


async def test_a_payment_is_paid_back_bit_by_bit_and_never_more_than_was_paid(house: House) -> None:
    payment = await made(house, State.SETTLED)
    after = await refunded(house, payment, 3)
    assert (after.state, after.refunded_amount) == (payment_pb2.Payment.SETTLED, euros(3))
    assert await spendable(house, payment) == (3, 7)
    error = await refusal(refunded(house, payment, 8))
    assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "REFUND_EXCEEDS_PAYMENT")
    after = await refunded(house, payment)
    assert (after.state, after.refunded_amount) == (payment_pb2.Payment.REFUNDED, euros(PAID))
    assert await spendable(house, payment) == (PAID, 0)
    account = await house.account(payment.payer_id)
    statement = await house.accounts(payment.payer_id).ListEntries(
        payment_pb2.ListEntriesRequest(account_id=account.id)
    )
    assert [(one.kind, one.amount.units, one.payment_id) for one in statement.entries][:2] == [
        (payment_pb2.Entry.REFUND, 7, payment.id),
        (payment_pb2.Entry.REFUND, 3, payment.id),
    ]


async def test_a_refund_is_refused_where_the_money_is_not_there_or_the_amount_is_none(house: House) -> None:
    payment = await made(house, State.SETTLED)
    for amount, expected in (
        (euros(0), "INVALID_AMOUNT"),
        (euros(-1), "INVALID_AMOUNT"),
        (MoneyProto(currency_code="USD", units=1), "CURRENCY_MISMATCH"),
        (MoneyProto(currency_code="XXX", units=1), "UNKNOWN_CURRENCY"),
    ):
        request = payment_pb2.RefundPaymentRequest(payment_id=payment.id, amount=amount)
        stub = house.pays(payment.payee_id, idempotency_key="amount")
        assert await outcome(stub.RefundPayment(request)) == expected
    await house.pay(payment.payee_id, payment.payer_id, 4)  # reserved, not gone yet
    error = await refusal(refunded(house, payment))
    assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS")
    assert await house.payment(payment.id) == payment
    assert (await refunded(house, payment, 6)).refunded_amount == euros(6)


async def test_twenty_refunds_at_once_pay_back_no_more_than_was_paid(house: House) -> None:
    payment = await made(house, State.SETTLED, units=100)
    outcomes = Counter(await asyncio.gather(*(outcome(refunded(house, payment, 6)) for _ in range(20))))
    assert outcomes == {"done": 16, "REFUND_EXCEEDS_PAYMENT": 4}
    assert await spendable(house, payment) == (96, 4)
    outcomes = Counter(await asyncio.gather(*(outcome(refunded(house, payment)) for _ in range(10))))
    assert outcomes == {"done": 1, "ILLEGAL_TRANSITION": 9}
    assert await spendable(house, payment) == (100, 0)


async def test_a_refund_is_made_once_per_key(house: House) -> None:
    payment = await made(house, State.SETTLED)
    answers = await asyncio.gather(*(refunded(house, payment, 2, key="once") for _ in range(20)))
    assert {answer.SerializeToString(deterministic=True) for answer in answers} == {
        answers[0].SerializeToString(deterministic=True)
    }
    assert await spendable(house, payment) == (2, 8)
    error = await refusal(refunded(house, payment, 3, key="once"))
    assert (reason(error), trailers(error)["x-http-code"]) == ("IDEMPOTENCY_KEY_REUSED", "422")
    assert await outcome(
        house.pays(payment.payee_id).RefundPayment(payment_pb2.RefundPaymentRequest(payment_id="p"))
    ) == ("IDEMPOTENCY_KEY_REQUIRED")


async def test_who_resumes_a_finished_stream_hears_of_refunds_since(house: House) -> None:
    payment = await made(house, State.SETTLED)
    await refunded(house, payment, 4)
    await refunded(house, payment)
    watch = payment_pb2.WatchPaymentRequest(payment_id=payment.id, after_sequence=2)
    events = [event async for event in house.pays(payment.payer_id).WatchPayment(watch)]
    assert [(one.sequence, one.state, one.refunded_amount) for one in events] == [
        (3, payment_pb2.Payment.SETTLED, euros(4)),
        (4, payment_pb2.Payment.REFUNDED, euros(PAID)),
    ]
    request = payment_pb2.StreamPaymentStatusRequest(payment_id=payment.id)
    stub = house.pays(payment.payer_id, last_event_id="3")
    text = b"".join([part.data async for part in stub.StreamPaymentStatus(request)]).decode()
    assert text.count("event: payment\n") == 1
    assert text.endswith("event: end\ndata: {}\n\n")
    finished = house.pays(payment.payer_id, last_event_id="4").StreamPaymentStatus(request)
    assert [part async for part in finished] == []
