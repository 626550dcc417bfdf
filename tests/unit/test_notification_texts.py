"""Who is told what about a payment."""

from datetime import UTC, datetime
from itertools import count

import pytest
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2

from services.notification import events
from services.notification.domain import Notification, notifications

STATES = [state for name, state in payment_pb2.Payment.State.items() if state != payment_pb2.Payment.STATE_UNSPECIFIED]


def told(
    state: payment_pb2.Payment.State.ValueType, reason: str = "", amount: Money | None = None
) -> list[Notification]:
    event = payment_pb2.PaymentEvent(
        payment_id="pay_1",
        sequence=1,
        state=state,
        state_reason=reason,
        payer_id="usr_payer",
        payee_id="usr_payee",
        amount=amount or Money(currency_code="EUR", units=42, nanos=500_000_000),
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


def test_the_payee_is_told_only_of_money_that_has_come() -> None:
    to_payee = {state: [one for one in told(state) if one.user_id == "usr_payee"] for state in STATES}
    [received] = to_payee.pop(payment_pb2.Payment.SETTLED)
    assert received.text == "You received 42.50 EUR."
    assert not any(to_payee.values())


def test_the_payer_is_told_that_money_was_lacking_but_not_what_screening_found() -> None:
    [lacking] = told(payment_pb2.Payment.DECLINED, "INSUFFICIENT_FUNDS")
    assert "not enough money" in lacking.text
    [screened] = told(payment_pb2.Payment.DECLINED, "SANCTIONS_HIT")
    assert screened.text == "Your payment of 42.50 EUR was declined. No money was taken."


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
