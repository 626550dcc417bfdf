"""Who is told what about a payment. No I/O."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

_TO_PAYER = {
    "AUTHORIZED": "Your payment of {amount} is on its way.",
    "IN_REVIEW": "Your payment of {amount} is being reviewed. You do not need to do anything.",
    "SETTLED": "You paid {amount}.",
    "DECLINED": "Your payment of {amount} was declined. No money was taken.",
    "FAILED": "Your payment of {amount} could not be completed. The money is back in your account.",
}
_TO_PAYEE = {"SETTLED": "You received {amount}."}
_LACKS_FUNDS = "Your payment of {amount} was declined: there is not enough money in your account."


@dataclass(frozen=True, slots=True)
class PaymentChange:
    """A payment came to a state."""

    payment_id: str
    state: str
    """By its name in payment.v1.Payment.State."""
    state_reason: str
    payer_id: str
    payee_id: str
    amount: str
    """As people write it: 42.50 EUR."""
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Notification:
    """What one user is told."""

    id: str
    user_id: str
    kind: str
    text: str
    payment_id: str
    create_time: datetime


def notifications(change: PaymentChange, new_id: Callable[[], str]) -> Iterator[Notification]:
    """Yields what the payer is told about every change, and the payee about money that has come."""
    lacks_funds = change.state_reason == "INSUFFICIENT_FUNDS"
    texts = [(change.payer_id, _LACKS_FUNDS if lacks_funds else _TO_PAYER[change.state])]
    if change.state in _TO_PAYEE:
        texts.append((change.payee_id, _TO_PAYEE[change.state]))
    for user_id, text in texts:
        yield Notification(
            id=new_id(),
            user_id=user_id,
            kind=f"PAYMENT_{change.state}",
            text=text.format(amount=change.amount),
            payment_id=change.payment_id,
            create_time=change.create_time,
        )
