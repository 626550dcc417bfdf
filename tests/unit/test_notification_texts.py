"""Who is told what about payments and documents."""

from datetime import UTC, datetime
from itertools import count

import pytest
from document.v1 import document_pb2
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2

from services.notification import events
from services.notification.domain import Notification, UnknownState, notifications, notifications_of_document

STATES = [state for name, state in payment_pb2.Payment.State.items() if state != payment_pb2.Payment.STATE_UNSPECIFIED]


def told(
    state: payment_pb2.Payment.State.ValueType,
    reason: str = "",
    amount: Money | None = None,
    refunded: Money | None = None,
) -> list[Notification]:
    event = payment_pb2.PaymentEvent(
        payment_id="pay_1",
        sequence=1,
        state=state,
        state_reason=reason,
        payer_id="usr_payer",
        payee_id="usr_payee",
        amount=amount or Money(currency_code="EUR", units=42, nanos=500_000_000),
        refunded_amount=refunded,
    )
    event.create_time.FromDatetime(datetime(2026, 11, 21, tzinfo=UTC))
    numbers = count(1)
    return list(notifications(events.read(event), lambda: f"ntf_{next(numbers)}"))


@pytest.mark.parametrize("state", STATES, ids=payment_pb2.Payment.State.Name)
def test_the_payer_is_told_of_every_state_that_the_contract_knows(state: payment_pb2.Payment.State.ValueType) -> None:
    [to_payer, *_] = told(state)
    assert to_payer.user_id == "usr_payer"
    assert to_payer.kind == f"PAYMENT_{payment_pb2.Payment.State.Name(state)}"
    assert "42.50 EUR" in to_payer.text


def test_the_payee_is_told_only_of_money_that_comes_or_goes_back() -> None:
    to_payee = {state: [one.text for one in told(state) if one.user_id == "usr_payee"] for state in STATES}
    assert {state: texts for state, texts in to_payee.items() if texts} == {
        payment_pb2.Payment.SETTLED: ["You received 42.50 EUR."],
        payment_pb2.Payment.REFUNDED: ["You paid back the 42.50 EUR that you had received."],
    }


def test_both_are_told_how_much_went_back_of_a_payment_that_is_refunded_in_part() -> None:
    to_payer, to_payee = told(payment_pb2.Payment.SETTLED, refunded=Money(currency_code="EUR", units=10))
    assert to_payer.kind == to_payee.kind == "PAYMENT_REFUNDED_IN_PART"
    assert to_payer.text == "In all, 10.00 EUR of your payment of 42.50 EUR came back to your account."
    assert to_payee.text == "In all, you paid back 10.00 EUR of 42.50 EUR that you had received."


def test_a_payment_of_which_nothing_was_refunded_is_just_settled() -> None:
    assert {one.kind for one in told(payment_pb2.Payment.SETTLED, refunded=Money(currency_code="EUR"))} == {
        "PAYMENT_SETTLED"
    }


@pytest.mark.parametrize("state", [payment_pb2.Payment.STATE_UNSPECIFIED, 99])
def test_a_state_that_is_not_known_is_no_reason_to_tell_nothing(state: payment_pb2.Payment.State.ValueType) -> None:
    with pytest.raises((UnknownState, ValueError)):
        told(state)


def test_the_payer_is_told_that_money_was_lacking_but_not_what_screening_found() -> None:
    [lacking] = told(payment_pb2.Payment.DECLINED, "INSUFFICIENT_FUNDS")
    assert "not enough money" in lacking.text
    [screened] = told(payment_pb2.Payment.DECLINED, "SANCTIONS_HIT")
    assert screened.text == "Your payment of 42.50 EUR was declined. No money was taken."


@pytest.mark.parametrize(("reason", "words"), [("REVIEW_DECLINED", "after a review"), ("REVIEW_EXPIRED", "in time")])
def test_the_payer_is_told_how_a_review_ended(reason: str, words: str) -> None:
    [ended] = told(payment_pb2.Payment.DECLINED, reason)
    assert words in ended.text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Money(currency_code="JPY", units=500), "500 JPY"),
        (Money(currency_code="KWD", units=1, nanos=5_000_000), "1.005 KWD"),
        (Money(currency_code="EUR", units=0, nanos=10_000_000), "0.01 EUR"),
        (Money(currency_code="EUR", units=999_999_999_999, nanos=990_000_000), "999999999999.99 EUR"),
    ],
)
def test_an_amount_has_the_decimals_of_its_currency(amount: Money, text: str) -> None:
    [paid, _] = told(payment_pb2.Payment.SETTLED, amount=amount)
    assert paid.text == f"You paid {text}."


@pytest.mark.parametrize("kind", [one for one in document_pb2.Document.Kind.values() if one])
@pytest.mark.parametrize("state", [document_pb2.Document.VERIFIED, document_pb2.Document.REJECTED])
def test_the_owner_is_told_of_documents_of_every_kind_that_the_contract_knows(
    kind: document_pb2.Document.Kind.ValueType, state: document_pb2.Document.State.ValueType
) -> None:
    change = events.read_document(document_pb2.DocumentEvent(kind=kind, state=state, owner_id="usr_1"))
    [one] = notifications_of_document(change, lambda: "ntf_1")
    what = document_pb2.Document.Kind.Name(kind).lower().replace("_", " ").replace("id card", "identity card")
    assert one.text == f"Your {what} was {'accepted' if state == document_pb2.Document.VERIFIED else 'not accepted'}."
