"""Payments as they are made, listed and watched: the whole service, with real stores and hand-written neighbours."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from google.type.money_pb2 import Money as MoneyProto
from payment.v1 import payment_pb2, payment_pb2_grpc

from services.payment.domain import State, Verdict
from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, euros, open_house, refusal
from tests.integration.serving import detail, reason, trailers


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as opened:
        yield opened


@pytest.fixture(autouse=True)
def kind_neighbours(house: House) -> None:
    house.kind_neighbours()


async def test_a_payment_is_authorized_with_its_money_reserved_and_then_settled(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    payment = await house.pay(payer, payee, 40)
    assert payment.state == payment_pb2.Payment.AUTHORIZED
    last = await house.settled(payer, payment.id)
    assert (last.state, last.sequence) == (payment_pb2.Payment.SETTLED, 2)
    assert (await house.account(payer)).balance == euros(60)
    assert (await house.account(payer)).reserved.units == 0
    assert (await house.account(payee)).available == euros(40)


async def test_a_payment_beyond_the_balance_is_declined_and_moves_nothing(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 11)
    assert (payment.state, payment.state_reason) == (payment_pb2.Payment.DECLINED, "INSUFFICIENT_FUNDS")
    assert (await house.account(payer)).available == euros(10)


async def test_money_reserved_for_one_payment_cannot_be_spent_by_another(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    house.compliance.verdict = Verdict(State.IN_REVIEW, "RISK_REVIEW", 70)
    held = await house.pay(payer, payee, 80)
    assert held.state == payment_pb2.Payment.IN_REVIEW
    assert (await house.account(payer)).reserved == euros(80)
    assert (await house.pay(payer, payee, 30)).state == payment_pb2.Payment.DECLINED


async def test_a_payment_that_screening_declines_reserves_nothing(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    house.compliance.verdict = Verdict(State.DECLINED, "SANCTIONS_HIT", 100)
    payment = await house.pay(payer, payee, 10)
    assert (payment.state, payment.state_reason) == (payment_pb2.Payment.DECLINED, "SANCTIONS_HIT")
    assert (await house.account(payer)).reserved.units == 0


async def test_a_payment_without_kyc_is_refused_and_leaves_nothing_behind(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    house.compliance.pending.add(payer)
    house.documents.without.add(payer)
    error = await refusal(house.pay(payer, payee, 10))
    assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "KYC_REQUIRED")
    violations = detail(error, error_details_pb2.PreconditionFailure()).violations
    assert [one.type for one in violations] == ["KYC_REQUIRED", "IDENTITY_DOCUMENT_REQUIRED"]
    assert not (await house.pays(payer).ListPayments(payment_pb2.ListPaymentsRequest())).payments
    assert (await house.account(payer)).reserved.units == 0


async def test_what_the_caller_can_mend_is_named(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    house.documents.without.add(payer)
    assert reason(await refusal(house.pay(payer, payee, 1))) == "IDENTITY_DOCUMENT_REQUIRED"
    house.documents.without.clear()
    house.users.suspended.add(payee)
    assert reason(await refusal(house.pay(payer, payee, 1))) == "PAYEE_NOT_ACTIVE"
    house.users.unknown.add(payee)
    error = await refusal(house.pay(payer, payee, 1))
    assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "PAYEE_NOT_FOUND")
    assert reason(await refusal(house.pay(payer, payer, 1))) == "PAYMENT_TO_SELF"


async def test_a_currency_in_which_a_party_has_no_account_is_a_mismatch(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    amount = MoneyProto(currency_code="USD", units=1)
    request = payment_pb2.CreatePaymentRequest(payee_id=payee, amount=amount)
    error = await refusal(house.pays(payer, idempotency_key="usd").CreatePayment(request))
    assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "CURRENCY_MISMATCH")


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (euros(0), "INVALID_AMOUNT"),
        (euros(-1), "INVALID_AMOUNT"),
        (euros(0, -1), "INVALID_AMOUNT"),
        (euros(1, 5_000_000), "INVALID_AMOUNT"),
        (euros(10**12 + 1), "INVALID_AMOUNT"),
        (MoneyProto(currency_code="JPY", units=1, nanos=500_000_000), "INVALID_AMOUNT"),
        (MoneyProto(currency_code="XXX", units=1), "UNKNOWN_CURRENCY"),
        (MoneyProto(currency_code="eur", units=1), "UNKNOWN_CURRENCY"),
        (None, "INVALID_REQUEST"),
    ],
)
async def test_an_amount_that_cannot_be_paid_is_refused(house: House, amount: MoneyProto | None, expected: str) -> None:
    request = payment_pb2.CreatePaymentRequest(payee_id="usr_1", amount=amount)
    error = await refusal(house.pays("usr_0", idempotency_key="k").CreatePayment(request))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, expected)


async def test_the_same_key_and_request_are_one_payment_and_one_answer(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    stub = house.pays(payer, idempotency_key='"once"')
    request = payment_pb2.CreatePaymentRequest(payee_id=payee, amount=euros(10))
    first = stub.CreatePayment(request)
    answer = await first
    await house.settled(payer, answer.id)
    again = house.pays(payer, idempotency_key="once").CreatePayment(request)
    assert await again == answer
    said = dict(await again.initial_metadata())
    assert (said["idempotent-replayed"], said["x-http-code"]) == ("true", "201")
    assert said["location"] == dict(await first.initial_metadata())["location"] == f"/api/v1/payments/{answer.id}"
    other = payment_pb2.CreatePaymentRequest(payee_id=payee, amount=euros(11))
    error = await refusal(stub.CreatePayment(other))
    assert (reason(error), trailers(error)["x-http-code"]) == ("IDEMPOTENCY_KEY_REUSED", "422")


async def test_fifty_requests_with_one_key_at_once_are_one_payment(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    answers = await asyncio.gather(*(house.pay(payer, payee, 10, key="race") for _ in range(50)))
    assert len({answer.id for answer in answers}) == 1
    await house.settled(payer, answers[0].id)
    assert (await house.account(payer)).balance == euros(90)


async def test_only_the_parties_and_officers_see_a_payment(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 1)
    request = payment_pb2.GetPaymentRequest(payment_id=payment.id)
    assert (await house.pays(payee).GetPayment(request)).id == payment.id
    officer = payment_pb2_grpc.PaymentServiceStub(house.edge.user("usr_officer", "officer"))
    assert (await officer.GetPayment(request)).id == payment.id
    error = await refusal(house.pays("usr_stranger").GetPayment(request))
    assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_PARTY")
    unknown = payment_pb2.GetPaymentRequest(payment_id="pay_unknown")
    assert reason(await refusal(house.pays(payer).GetPayment(unknown))) == "PAYMENT_NOT_FOUND"
    unstorable = payment_pb2.GetPaymentRequest(payment_id="pay_\0")
    assert reason(await refusal(house.pays(payer).GetPayment(unstorable))) == "INVALID_REQUEST"


async def test_payments_are_listed_newest_first_and_stay_in_place_while_more_are_made(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    made = [(await house.pay(payer, payee, 1)).id for _ in range(5)]
    stub = house.pays(payee)
    first = await stub.ListPayments(payment_pb2.ListPaymentsRequest(page_size=3))
    await house.pay(payer, payee, 1)
    request = payment_pb2.ListPaymentsRequest(page_size=3, page_token=first.next_page_token)
    second = await stub.ListPayments(request)
    assert [one.id for one in (*first.payments, *second.payments)] == made[::-1]
    assert second.next_page_token == ""
    error = await refusal(house.pays("usr_stranger").ListPayments(request))
    assert reason(error) == "INVALID_PAGE_TOKEN"
    assert reason(await refusal(stub.ListPayments(payment_pb2.ListPaymentsRequest(page_size=-1)))) == "INVALID_REQUEST"


async def test_the_status_stream_tells_every_change_and_ends(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 1)
    request = payment_pb2.StreamPaymentStatusRequest(payment_id=payment.id)
    text = b"".join([part.data async for part in house.pays(payer).StreamPaymentStatus(request)]).decode()
    assert text.startswith("retry: ")
    assert [line for line in text.split("\n") if line.startswith(("id:", "event:"))] == [
        "id: 1",
        "event: payment",
        "id: 2",
        "event: payment",
        "event: end",
    ]
    assert '"state": "SETTLED"' in text


async def test_the_status_stream_resumes_after_the_last_event_and_says_when_there_is_no_more(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 1)
    await house.settled(payer, payment.id)
    request = payment_pb2.StreamPaymentStatusRequest(payment_id=payment.id)
    resumed = house.pays(payer, last_event_id="1").StreamPaymentStatus(request)
    text = b"".join([part.data async for part in resumed]).decode()
    assert "id: 1\n" not in text
    assert "id: 2\n" in text
    finished = house.pays(payer, last_event_id="2").StreamPaymentStatus(request)
    assert [part async for part in finished] == []
    assert dict(await finished.initial_metadata())["x-http-code"] == "204"
    for never_sent in ("two", "-1", "3", "9" * 20):
        wrong = house.pays(payer, last_event_id=never_sent).StreamPaymentStatus(request)
        assert reason(await refusal(wrong.read())) == "INVALID_LAST_EVENT_ID"
    beyond = payment_pb2.WatchPaymentRequest(payment_id=payment.id, after_sequence=3)
    assert reason(await refusal(house.pays(payer).WatchPayment(beyond).read())) == "INVALID_REQUEST"
