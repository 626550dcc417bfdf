"""What a payment is and what may become of it. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from services.payment.ledger.domain import CurrencyMismatch, Money
from services.runtime.errors import (
    EtagMismatch,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionViolation,
)


class PaymentNotFound(NotFound):
    """There is no such payment."""

    message = "There is no payment {payment_id}."


class NotAParty(PermissionDenied):
    """The payment is between others."""

    message = "Payment {payment_id} is between others."


class NotThePayer(PermissionDenied):
    """What only the payer may do was tried by somebody else."""

    message = "Only its payer may do this to payment {payment_id}."


class NotThePayee(PermissionDenied):
    """A payment is paid back by whoever received it, or by an admin who did not make it."""

    message = "Only its payee or an admin may pay back payment {payment_id}."


class OwnPayment(PermissionDenied):
    """An officer was about to decide on a payment that they make or receive."""

    message = "Payment {payment_id} is your own: somebody else decides on it."


class PaymentToSelf(InvalidArgument):
    """Payer and payee are the same user."""

    message = "A payment goes to somebody else: payeeId is the payer."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("payeeId", "is the payer")])


class PaymentCurrencyMismatch(FailedPrecondition):
    """The payment is in another currency."""

    reason = CurrencyMismatch.reason
    message = "Payment {payment_id} is not in {currency_code}."


class RefundExceedsPayment(FailedPrecondition):
    """More was to be paid back than is left of the payment."""

    message = "Less than that is left of payment {payment_id}: read its refundedAmount."

    def __init__(self, payment_id: str) -> None:
        description = "Refunds are no more than the payment, all together."
        super().__init__(
            payment_id=payment_id, preconditions=[PreconditionViolation("REFUND_LEFT", payment_id, description)]
        )


class State(Enum):
    """Where a payment stands. The values are those of payment.v1.Payment.State."""

    AUTHORIZED = 1
    IN_REVIEW = 2
    SETTLED = 3
    DECLINED = 4
    FAILED = 5
    CANCELLED = 6
    REFUNDED = 7

    @property
    def terminal(self) -> bool:
        """Whether the payment, and a stream of its changes, ends here."""
        return self not in (State.AUTHORIZED, State.IN_REVIEW)

    @property
    def holds_money(self) -> bool:
        """Whether the amount is reserved on the payer's account."""
        return not self.terminal


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.IN_REVIEW: frozenset({State.AUTHORIZED, State.DECLINED, State.CANCELLED}),
    State.AUTHORIZED: frozenset({State.SETTLED, State.FAILED, State.CANCELLED}),
    State.SETTLED: frozenset({State.REFUNDED}),
}
"""What may become of a payment. One that is refunded in part is SETTLED again."""


class IllegalTransition(FailedPrecondition):
    """The payment is not in a state from which this can be done."""

    message = "Payment {payment_id} is {state}, and that is too late or too early for this."

    def __init__(self, payment_id: str, state: State, target: State) -> None:
        wanted = " or ".join(one.name for one, targets in TRANSITIONS.items() if target in targets)
        description = f"It must be {wanted}." if wanted else f"No payment becomes {target.name}."
        violation = PreconditionViolation("PAYMENT_STATE", payment_id, description)
        super().__init__(payment_id=payment_id, state=state.name, preconditions=[violation])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What screening decided about a payment that is about to be made."""

    state: State
    state_reason: str
    risk_score: int


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a payment's life."""

    payment_id: str
    payer_id: str
    payee_id: str
    amount: Money
    invoice_id: str
    sequence: int
    """Counts a payment's changes from 1, without gaps."""
    state: State
    state_reason: str
    refunded: Money
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Payment:
    """Money on its way from a payer to a payee."""

    id: str
    payer_id: str
    payee_id: str
    payer_account_id: str
    payee_account_id: str
    amount: Money
    description: str
    invoice_id: str
    """The invoice that it pays; empty where there is none."""
    state: State
    state_reason: str
    risk_score: int
    sequence: int
    """How many changes there were; the last event's sequence, and the etag."""
    create_time: datetime
    update_time: datetime
    refunded_minor: int = 0
    """How much of it went back to the payer, in the currency's smallest unit."""
    review_expire_time: datetime | None = None
    """IN_REVIEW: when it is declined."""

    @property
    def refunded(self) -> Money:
        """How much of it went back to the payer."""
        return Money(self.amount.currency_code, self.refunded_minor)

    @property
    def etag(self) -> str:
        """The version of the payment."""
        return str(self.sequence)

    def has_party(self, user_id: str) -> bool:
        """Tells whether a user is the payer or the payee."""
        return user_id in (self.payer_id, self.payee_id)

    def declined(self, reason: str) -> "Payment":
        """The same new payment, declined instead."""
        return replace(self, state=State.DECLINED, state_reason=reason, review_expire_time=None)

    def cancelled(self, user_id: str, etag: str, now: datetime) -> "Payment":
        """The payment, called off by its payer. Raises NotThePayer, EtagMismatch or IllegalTransition."""
        if user_id != self.payer_id:
            raise NotThePayer(payment_id=self.id)
        self._require_etag(etag)
        return self._became(State.CANCELLED, "", now)

    def approved(self, officer_id: str, etag: str, now: datetime) -> "Payment":
        """The payment after an officer let it go on. Raises OwnPayment, EtagMismatch or IllegalTransition."""
        return self._decided(officer_id, etag, State.AUTHORIZED, "", now)

    def refused(self, officer_id: str, etag: str, now: datetime) -> "Payment":
        """The payment after an officer declined it. Raises OwnPayment, EtagMismatch or IllegalTransition."""
        return self._decided(officer_id, etag, State.DECLINED, "REVIEW_DECLINED", now)

    def expired(self, now: datetime) -> "Payment":
        """The payment after nobody decided on it in time. Raises IllegalTransition."""
        return self._became(State.DECLINED, "REVIEW_EXPIRED", now)

    def settled(self, now: datetime) -> "Payment":
        """The payment once the money has moved. Raises IllegalTransition."""
        return self._became(State.SETTLED, "", now)

    def failed(self, reason: str, now: datetime) -> "Payment":
        """The payment when the money could not be moved. Raises IllegalTransition."""
        return self._became(State.FAILED, reason, now)

    def refund(self, user_id: str, *, admin: bool, etag: str, amount: Money | None, now: datetime) -> "Payment":
        """The payment after this amount, or else all that is left of it, went back to its payer.

        Raises NotThePayee, EtagMismatch, IllegalTransition, PaymentCurrencyMismatch or RefundExceedsPayment.
        """
        if user_id != self.payee_id and (not admin or user_id == self.payer_id):
            raise NotThePayee(payment_id=self.id)
        self._require_etag(etag)
        self._require_may_become(State.REFUNDED)
        left = self.amount.minor - self.refunded_minor
        back = left if amount is None else amount.minor
        if amount is not None and amount.currency_code != self.amount.currency_code:
            raise PaymentCurrencyMismatch(payment_id=self.id, currency_code=amount.currency_code)
        if back > left:
            raise RefundExceedsPayment(self.id)
        state = State.REFUNDED if back == left else State.SETTLED
        return replace(self._after(state, "", now), refunded_minor=self.refunded_minor + back)

    def change(self) -> Change:
        """The step that brought the payment to where it stands."""
        return Change(
            payment_id=self.id,
            payer_id=self.payer_id,
            payee_id=self.payee_id,
            amount=self.amount,
            invoice_id=self.invoice_id,
            sequence=self.sequence,
            state=self.state,
            state_reason=self.state_reason,
            refunded=self.refunded,
            create_time=self.update_time,
        )

    def _decided(self, officer_id: str, etag: str, state: State, reason: str, now: datetime) -> "Payment":
        if officer_id in (self.payer_id, self.payee_id):
            raise OwnPayment(payment_id=self.id)
        self._require_etag(etag)
        return self._became(state, reason, now)

    def _became(self, state: State, reason: str, now: datetime) -> "Payment":
        self._require_may_become(state)
        return self._after(state, reason, now)

    def _require_etag(self, etag: str) -> None:
        if etag not in ("", self.etag):
            raise EtagMismatch(resource=f"Payment {self.id}", etag=etag)

    def _require_may_become(self, state: State) -> None:
        if state not in TRANSITIONS.get(self.state, ()):
            raise IllegalTransition(self.id, self.state, state)

    def _after(self, state: State, reason: str, now: datetime) -> "Payment":
        """The payment one step on. Its time never goes back, whatever the clock of this machine says."""
        return replace(
            self,
            state=state,
            state_reason=reason,
            sequence=self.sequence + 1,
            update_time=max(now, self.update_time),
            review_expire_time=None,
        )
