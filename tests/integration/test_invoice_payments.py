"""Invoices and the payments that settle them, one after the other and at once."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from payment.v1 import invoice_pb2, payment_pb2

from services.payment.domain import State, Verdict
from services.runtime.ids import new_id
from tests.integration.billing import (
    OPEN,
    PAID,
    VOID,
    bills,
    contradictions,
    is_paid,
    issued,
    now,
    pay,
    refusals,
    void,
)
from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, euros, open_house, refusal
from tests.integration.serving import detail, reason
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as opened:
        yield opened


@pytest.fixture(autouse=True)
def kind_neighbours(house: House) -> None:
    house.kind_neighbours()


async def test_an_invoice_is_paid_by_one_call_when_its_payment_settles(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer, 40)
    async with house.settling_paused():
        payment = await pay(house, invoice)
        assert (payment.state, payment.amount, payment.invoice_id) == (State.AUTHORIZED.value, euros(40), invoice.id)
        assert (payment.payer_id, payment.payee_id, payment.description) == (payer, payee, "Piano, May")
        under_way = await now(house, invoice)
        assert (under_way.state, under_way.payment_id, under_way.etag) == (OPEN, payment.id, "2")
    told = await house.settled(payer, payment.id)
    assert (told.state, told.invoice_id) == (payment_pb2.Payment.SETTLED, invoice.id)
    paid = await now(house, invoice)
    assert (paid.state, paid.payment_id, paid.etag) == (PAID, payment.id, "3")
    assert (await house.account(payee)).balance == euros(40)
    assert reason(await refusal(pay(house, invoice))) == "INVOICE_NOT_OPEN"
    error = await refusal(void(house, invoice))
    assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "INVOICE_NOT_OPEN")
    assert detail(error, error_details_pb2.ErrorInfo()).metadata["state"] == "PAID"
    [unmet] = detail(error, error_details_pb2.PreconditionFailure()).violations
    assert (unmet.type, unmet.subject) == ("INVOICE_OPEN", invoice.id)


async def test_paying_again_with_the_same_key_is_answered_as_before_even_when_the_invoice_is_paid(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer, 40)
    payment = await pay(house, invoice, key="once")
    await house.settled(payer, payment.id)
    request = invoice_pb2.PayInvoiceRequest(invoice_id=invoice.id)
    again = bills(house, payer, idempotency_key="once").PayInvoice(request)
    assert await again == payment
    assert dict(await again.initial_metadata())["idempotent-replayed"] == "true"
    assert (await house.account(payer)).balance == euros(60)
    other = await issued(house, payee, payer, 40)
    assert reason(await refusal(pay(house, other, key="once"))) == "IDEMPOTENCY_KEY_REUSED"
    assert reason(await refusal(bills(house, payer).PayInvoice(request))) == "IDEMPOTENCY_KEY_REQUIRED"


async def test_what_the_payer_can_mend_leaves_the_invoice_as_it_was(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer)
    house.compliance.pending.add(payer)
    assert reason(await refusal(pay(house, invoice, key="later"))) == "KYC_REQUIRED"
    house.compliance.pending.clear()
    house.users.suspended.add(payee)
    assert reason(await refusal(pay(house, invoice, key="later"))) == "PAYEE_NOT_ACTIVE"
    house.users.suspended.clear()
    assert await now(house, invoice) == invoice
    assert (await pay(house, invoice, key="later")).state == payment_pb2.Payment.AUTHORIZED


async def test_a_declined_payment_leaves_the_invoice_open_for_another(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    invoice = await issued(house, payee, payer, 40)
    declined = await pay(house, invoice, key="too-early")
    assert (declined.state_reason, declined.invoice_id) == ("INSUFFICIENT_FUNDS", invoice.id)
    assert await now(house, invoice) == invoice
    house.compliance.verdict = Verdict(State.DECLINED, "SANCTIONS_HIT", 100)
    assert (await pay(house, invoice)).state_reason == "SANCTIONS_HIT"
    house.kind_neighbours()
    await house.deposit((await house.account(payer)).id, 30)
    assert await pay(house, invoice, key="too-early") == declined
    payment = await pay(house, invoice)
    await house.settled(payer, payment.id)
    assert (await now(house, invoice)).payment_id == payment.id
    assert await contradictions(house) == []


async def test_fifty_payments_of_an_invoice_at_once_are_one(house: House) -> None:
    payer, payee = await house.user_with(1000), await house.user_with(0)
    invoice = await issued(house, payee, payer, 10)
    async with house.settling_paused():
        refused = await refusals(*[pay(house, invoice) for _ in range(50)])
        assert refused == ["INVOICE_PAYMENT_UNDER_WAY"] * 49
        assert (await house.account(payer)).reserved == euros(10)
    await eventually(lambda: is_paid(house, invoice))
    assert (await house.account(payee)).balance == euros(10)


async def test_fifty_requests_with_one_key_to_pay_an_invoice_have_one_answer(house: House) -> None:
    payer, payee = await house.user_with(1000), await house.user_with(0)
    invoice = await issued(house, payee, payer, 10)
    answers = await asyncio.gather(*(pay(house, invoice, key="race") for _ in range(50)))
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1


async def test_of_paying_and_taking_back_at_once_one_wins(house: House) -> None:
    payer, payee = await house.user_with(1000), await house.user_with(0)
    for etag in ("", "1"):
        for _ in range(10):
            invoice = await issued(house, payee, payer)
            refused = await refusals(pay(house, invoice, etag=etag), void(house, invoice, etag=etag))
            last = await now(house, invoice)
            assert refused == [
                "ETAG_MISMATCH" if etag else "INVOICE_NOT_OPEN" if last.state == VOID else "INVOICE_PAYMENT_UNDER_WAY"
            ]
            assert (last.payment_id == "") == (last.state == VOID)


async def test_a_payment_called_off_leaves_the_invoice_free_again(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer)
    async with house.settling_paused():
        payment = await pay(house, invoice)
        await house.pays(payer).CancelPayment(payment_pb2.CancelPaymentRequest(payment_id=payment.id))
        free = await now(house, invoice)
        assert (free.state, free.payment_id, free.etag) == (OPEN, "", "3")
        assert reason(await refusal(pay(house, invoice, etag="1"))) == "ETAG_MISMATCH"
        assert (await pay(house, invoice, etag="3")).state == payment_pb2.Payment.AUTHORIZED
    await eventually(lambda: is_paid(house, invoice))


async def test_an_invoice_whose_payment_could_not_be_settled_is_free_again(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer)
    async with house.settling_paused():
        payment = await pay(house, invoice)
        await house.payments.change(payment.id, lambda one: one.failed("SETTLEMENT_FAILED", datetime.now(UTC)))
        assert (await now(house, invoice)).payment_id == ""
        assert (await void(house, invoice)).state == VOID


async def test_an_invoice_waits_for_the_review_of_its_payment(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer)
    house.compliance.verdict = Verdict(State.IN_REVIEW, "RISK_REVIEW", 70)
    declined = await pay(house, invoice)
    assert declined.state == payment_pb2.Payment.IN_REVIEW
    assert (await now(house, invoice)).payment_id == declined.id
    assert await refusals(pay(house, invoice), void(house, invoice)) == ["INVOICE_PAYMENT_UNDER_WAY"] * 2
    await house.officer().DeclinePayment(payment_pb2.DeclinePaymentRequest(payment_id=declined.id))
    assert ((await now(house, invoice)).state, (await now(house, invoice)).payment_id) == (OPEN, "")
    approved = await pay(house, invoice)
    await house.officer().ApprovePayment(payment_pb2.ApprovePaymentRequest(payment_id=approved.id))
    await house.settled(payer, approved.id)
    paid = await now(house, invoice)
    assert (paid.state, paid.payment_id) == (PAID, approved.id)


async def test_an_invoice_stays_paid_when_its_payment_is_refunded(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer, 40)
    payment = await pay(house, invoice)
    await house.settled(payer, payment.id)
    paid = await now(house, invoice)
    for amount, left in ((euros(15), payment_pb2.Payment.SETTLED), (None, payment_pb2.Payment.REFUNDED)):
        request = payment_pb2.RefundPaymentRequest(payment_id=payment.id, amount=amount)
        refunded = await house.pays(payee, idempotency_key=new_id("key")).RefundPayment(request)
        assert (refunded.state, refunded.invoice_id) == (left, invoice.id)
        assert await now(house, invoice) == paid
    assert reason(await refusal(pay(house, invoice))) == "INVOICE_NOT_OPEN"


async def test_whatever_happens_at_once_an_invoice_is_paid_exactly_when_its_payment_is_settled(house: House) -> None:
    users = [await house.user_with(1000) for _ in range(4)]
    pairs = [(payee, payer) for payee in users for payer in users if payee != payer]

    async def calls_off(invoice: invoice_pb2.Invoice) -> None:
        for _ in range(3):
            request = payment_pb2.CancelPaymentRequest(payment_id=(await pay(house, invoice)).id)
            await house.pays(invoice.payer_id).CancelPayment(request)

    async def gets_back(invoice: invoice_pb2.Invoice) -> None:
        payment = await pay(house, invoice)
        await house.settled(invoice.payer_id, payment.id)
        request = payment_pb2.RefundPaymentRequest(payment_id=payment.id, amount=euros(4))
        await house.pays(invoice.payee_id, idempotency_key=new_id("key")).RefundPayment(request)

    async def settles(invoice: invoice_pb2.Invoice) -> None:
        if under_way := (await now(house, invoice)).payment_id:
            await house.payments.settle(under_way, datetime.now(UTC))

    async def looks() -> None:
        while True:
            assert await contradictions(house) == []
            await asyncio.sleep(0.005)

    async def nothing_is_under_way() -> bool:
        return not await house.database.fetch("SELECT FROM payments WHERE state = 'AUTHORIZED'")

    looking = asyncio.create_task(looks())
    for turn in range(3):
        calls: list[Awaitable[object]]
        invoices = [await issued(house, payee, payer) for payee, payer in pairs]
        calls = [act(one) for one in invoices for act in (calls_off, settles, gets_back, settles, calls_off, gets_back)]
        calls += [void(house, one) for one in invoices[turn::4]]
        random.Random(turn).shuffle(calls)  # noqa: S311  # no secret: the same disorder every time
        refused = await refusals(*calls)
        assert set(refused) <= {"INVOICE_PAYMENT_UNDER_WAY", "INVOICE_NOT_OPEN", "ILLEGAL_TRANSITION"}
    await eventually(nothing_is_under_way)
    print(
        "STATES",
        await house.database.fetch("select state, count(*) from payments group by 1"),
        await house.database.fetch("select state, count(*), max(sequence) from invoices group by 1"),
        __import__("collections").Counter(refused),
    )
    assert not looking.done(), looking
    looking.cancel()
    assert await contradictions(house) == []
    accounts = [await house.account(user) for user in users]
    assert sum(account.balance.units for account in accounts) == 4000
    assert [account.reserved.units for account in accounts] == [0] * 4
    assert not await house.database.fetch("SELECT FROM payments WHERE settle_failures > 0")
