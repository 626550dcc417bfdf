"""What a payment is and what may become of it. No I/O."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from services.payment.ledger.domain import Money
from services.runtime.errors import (
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


class PayeeNotFound(NotFound):
    """The user to pay does not exist."""

    message = "There is no user {payee_id} to pay."


class NotAParty(PermissionDenied):
    """The payment is between others."""

    message = "Payment {payment_id} is between others."


class PaymentToSelf(InvalidArgument):
    """Payer and payee are the same user."""

    message = "A payment goes to somebody else: payeeId is the payer."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("payeeId", "is the payer")])


class _Unmet(FailedPrecondition):
    """Something about the payer or the payee must be mended before the payment."""

    def __init__(self, user_id: str, violations: list[PreconditionViolation]) -> None:
        super().__init__(user_id=user_id, preconditions=violations)


class PayerNotActive(_Unmet):
    """The payer is suspended or gone."""

    message = "User {user_id} cannot pay: the user is not active."


class PayeeNotActive(_Unmet):
    """The payee is suspended."""

    message = "User {user_id} cannot be paid: the user is not active."


class KycRequired(_Unmet):
    """The payer has not passed the know-your-customer checks."""

    message = "User {user_id} cannot pay before the know-your-customer checks are passed."


class IdentityDocumentRequired(_Unmet):
    """The payer has no verified identity document."""

    message = "User {user_id} cannot pay before an identity document is uploaded and verified."


class State(Enum):
    """Where a payment stands. The values are those of payment.v1.Payment.State."""

    AUTHORIZED = 1
    IN_REVIEW = 2
    SETTLED = 3
    DECLINED = 4
    FAILED = 5

    @property
    def terminal(self) -> bool:
        """Whether the payment, and a stream of its changes, ends here."""
        return self not in (State.AUTHORIZED, State.IN_REVIEW)

    @property
    def holds_money(self) -> bool:
        """Whether the amount is reserved on the payer's account."""
        return not self.terminal


@dataclass(frozen=True, slots=True)
class Verdict:
    """What screening decided about a payment that is about to be made."""

    state: State
    state_reason: str
    risk_score: int


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a payment's life."""

    sequence: int
    """Counts a payment's changes from 1, without gaps."""
    state: State
    state_reason: str
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

    def require_party(self, user_id: str) -> None:
        """Lets payer and payee pass. Raises NotAParty."""
        if user_id not in (self.payer_id, self.payee_id):
            raise NotAParty(payment_id=self.id)

    def declined(self, reason: str) -> "Payment":
        """The same new payment, declined instead."""
        return replace(self, state=State.DECLINED, state_reason=reason)

    def became(self, state: State, reason: str, now: datetime) -> "Payment":
        """The payment after a change of state."""
        return replace(self, state=state, state_reason=reason, sequence=self.sequence + 1, update_time=now)

    def change(self) -> Change:
        """The step that brought the payment to where it stands."""
        return Change(self.sequence, self.state, self.state_reason, self.update_time)


@dataclass(frozen=True, slots=True)
class Party:
    """What a payment needs to know about a user."""

    user_id: str
    display_name: str
    country: str
    active: bool


def require_parties(payer: Party | None, payee: Party | None, payer_id: str, payee_id: str) -> tuple[Party, Party]:
    """Returns both parties. Raises PayeeNotFound, PayerNotActive or PayeeNotActive."""
    if payee is None:
        raise PayeeNotFound(payee_id=payee_id)
    for party, user_id, error in ((payer, payer_id, PayerNotActive), (payee, payee_id, PayeeNotActive)):
        if party is None or not party.active:
            raise error(user_id, [PreconditionViolation("USER_ACTIVE", user_id, "The user is not active.")])
    assert payer is not None  # noqa: S101  # for mypy: the loop refused it
    return payer, payee


def require_identified(payer_id: str, *, kyc_passed: bool, has_document: bool) -> None:
    """Raises KycRequired or IdentityDocumentRequired, naming all that is missing."""
    missing = []
    if not kyc_passed:
        missing.append(PreconditionViolation("KYC_REQUIRED", payer_id, "The KYC checks are not passed."))
    if not has_document:
        description = "There is no verified passport, identity card or driving licence."
        missing.append(PreconditionViolation("IDENTITY_DOCUMENT_REQUIRED", payer_id, description))
    if missing:
        raise (IdentityDocumentRequired if kyc_passed else KycRequired)(payer_id, missing)
