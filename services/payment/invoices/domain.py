"""What an invoice is and what may become of it. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import Enum

from services.payment.ledger.domain import Money
from services.runtime.errors import (
    EtagMismatch,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionViolation,
)

LATEST_ZONE = timedelta(hours=12)
"""How long a day lasts somewhere on Earth after it is over in UTC."""


class InvoiceNotFound(NotFound):
    """There is no such invoice."""

    message = "There is no invoice {invoice_id}."


class PayerNotFound(NotFound):
    """The user who is to pay does not exist."""

    message = "There is no user {payer_id} to ask for money."


class NotAPartyToInvoice(PermissionDenied):
    """The invoice is between others."""

    message = "Invoice {invoice_id} is between others."


class NotThePayerOfInvoice(PermissionDenied):
    """Somebody else is to pay."""

    message = "Only its payer may pay invoice {invoice_id}."


class NotThePayeeOfInvoice(PermissionDenied):
    """Somebody else issued the invoice."""

    message = "Only its payee may take invoice {invoice_id} back."


class InvoiceToSelf(InvalidArgument):
    """Payee and payer are the same user."""

    message = "An invoice goes to somebody else: payerId is the caller."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("payerId", "is the caller")])


class MixedCurrencies(InvalidArgument):
    """The lines are not all in one currency."""

    message = "The lines must all be in one currency: {currency_code} is not {first_currency_code}."

    def __init__(self, field: str, currency_code: str, first_currency_code: str) -> None:
        super().__init__(
            fields=[FieldViolation(field, "must be in the currency of the first line")],
            currency_code=currency_code,
            first_currency_code=first_currency_code,
        )


class InvalidDueDate(InvalidArgument):
    """The due date is no whole date, or is over."""

    message = "The due date must be a whole date that is not over."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("dueDate", "must be a whole date that is not over")])


class InvoiceNotOpen(FailedPrecondition):
    """The invoice is paid or void."""

    message = "Invoice {invoice_id} is not open: it is {state}."

    def __init__(self, invoice_id: str, state: str) -> None:
        unmet = PreconditionViolation("INVOICE_OPEN", invoice_id, f"The invoice is {state}.")
        super().__init__(preconditions=[unmet], invoice_id=invoice_id, state=state)


class InvoicePaymentUnderWay(FailedPrecondition):
    """The invoice is being paid."""

    message = "Invoice {invoice_id} is being paid by payment {payment_id}."

    def __init__(self, invoice_id: str, payment_id: str) -> None:
        unmet = PreconditionViolation("NO_PAYMENT_UNDER_WAY", invoice_id, f"Payment {payment_id} is under way.")
        super().__init__(preconditions=[unmet], invoice_id=invoice_id, payment_id=payment_id)


class State(Enum):
    """Where an invoice stands. The values are those of payment.v1.Invoice.State."""

    OPEN = 1
    PAID = 2
    VOID = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that an invoice asks money for."""

    description: str
    quantity: int
    unit_amount: Money


@dataclass(frozen=True, slots=True)
class ToPay:
    """An invoice that a payment is to pay, as its payer knows it."""

    invoice_id: str
    etag: str
    """Empty: whatever it is now."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """Money that a payee asks of a payer."""

    id: str
    payee_id: str
    payer_id: str
    lines: Sequence[Line]
    amount: Money
    due_date: date
    description: str
    state: State
    payment_id: str
    """The payment that is under way where the invoice is OPEN, or that paid it. Empty where there is none."""
    sequence: int
    """Counts the states of the invoice from 1; the etag."""
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        """The version as clients see it (AIP-154)."""
        return str(self.sequence)

    def has_party(self, user_id: str) -> bool:
        """Tells whether a user is the payee or the payer."""
        return user_id in (self.payee_id, self.payer_id)

    def require_payer(self, user_id: str) -> None:
        """Lets the payer pass. Raises NotThePayerOfInvoice."""
        if user_id != self.payer_id:
            raise NotThePayerOfInvoice(invoice_id=self.id)

    def require_payee(self, user_id: str) -> None:
        """Lets the payee pass. Raises NotThePayeeOfInvoice."""
        if user_id != self.payee_id:
            raise NotThePayeeOfInvoice(invoice_id=self.id)

    def require_free(self, etag: str) -> None:
        """Lets what needs an open invoice pass that is based on this version, or on none, and is not being paid.

        Raises EtagMismatch, InvoiceNotOpen or InvoicePaymentUnderWay.
        """
        if etag and etag != self.etag:
            raise EtagMismatch(resource=f"Invoice {self.id}", etag=etag)
        if self.state is not State.OPEN:
            raise InvoiceNotOpen(self.id, self.state.name)
        if self.payment_id:
            raise InvoicePaymentUnderWay(self.id, self.payment_id)

    def voided(self, now: datetime) -> "Invoice":
        """The invoice after its payee took it back."""
        return replace(self, state=State.VOID, sequence=self.sequence + 1, update_time=now)


def total(lines: Sequence[Line]) -> Money:
    """Returns the sum of one or more lines. Raises MixedCurrencies."""
    currency_code = lines[0].unit_amount.currency_code
    for place, line in enumerate(lines):
        if line.unit_amount.currency_code != currency_code:
            raise MixedCurrencies(f"lines[{place}].unitAmount", line.unit_amount.currency_code, currency_code)
    return Money(currency_code, sum(line.quantity * line.unit_amount.minor for line in lines))


def due_date(year: int, month: int, day: int, now: datetime) -> date:
    """Returns a due date. Raises InvalidDueDate where a part is missing, or the day is over everywhere on Earth."""
    try:
        due = date(year, month, day)
    except ValueError as error:
        raise InvalidDueDate from error
    if due < (now - LATEST_ZONE).date():
        raise InvalidDueDate
    return due
