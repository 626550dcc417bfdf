"""Invoices without a database."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from google.type import money_pb2

from services.payment import money
from services.payment.invoices.domain import (
    InvalidDueDate,
    Invoice,
    InvoiceNotOpen,
    InvoicePaymentUnderWay,
    Line,
    MixedCurrencies,
    NotThePayeeOfInvoice,
    NotThePayerOfInvoice,
    State,
    due_date,
    total,
)
from services.payment.ledger.domain import Money
from services.payment.money import InvalidAmount
from services.runtime.errors import EtagMismatch

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
LINE = Line("Tuning", 1, Money("EUR", 100))
OPEN = Invoice(
    id="inv_1",
    payee_id="usr_payee",
    payer_id="usr_payer",
    lines=[LINE],
    amount=LINE.unit_amount,
    due_date=date(2026, 4, 1),
    description="Piano",
    state=State.OPEN,
    payment_id="",
    sequence=1,
    create_time=NOW,
    update_time=NOW,
)
BEING_PAID = replace(OPEN, payment_id="pay_1", sequence=2)
PAID = replace(BEING_PAID, state=State.PAID, sequence=3)


def test_an_invoice_is_for_the_sum_of_its_lines() -> None:
    lines = [Line("Tuning", 3, Money("EUR", 1999)), Line("Way", 1, Money("EUR", 1))]
    assert total(lines) == Money("EUR", 5998)


def test_a_sum_too_large_for_a_float_is_kept_to_the_cent() -> None:
    assert total([Line("Bridge", 3, Money("EUR", 3 * 10**15 + 1))]) == Money("EUR", 9 * 10**15 + 3)
    assert total([Line("Bridges", 2**31 - 1, Money("CLF", 10**16))]).minor == (2**31 - 1) * 10**16


def test_lines_together_cannot_be_more_than_can_be_paid_at_once() -> None:
    most = money.read(money_pb2.Money(currency_code="KWD", units=10**12))
    money.require_payable(most, "lines")
    with pytest.raises(InvalidAmount):
        money.require_payable(total([Line("All", 1, most), Line("More", 1, Money("KWD", 1))]), "lines")


def test_lines_are_in_one_currency() -> None:
    with pytest.raises(MixedCurrencies) as caught:
        total([LINE, LINE, Line("Tuning", 1, Money("USD", 100))])
    assert caught.value.fields[0].field == "lines[2].unitAmount"


@pytest.mark.parametrize("parts", [(2026, 2, 29), (2026, 13, 1), (2027, 0, 0), (2027, 5, 0), (0, 5, 1), (10000, 1, 1)])
def test_a_due_date_is_a_whole_date(parts: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidDueDate):
        due_date(*parts, NOW)


def test_a_due_date_is_not_over_where_the_day_lasts_longest() -> None:
    assert due_date(2028, 2, 29, NOW) == date(2028, 2, 29)
    morning = datetime(2026, 3, 1, 11, 59, tzinfo=UTC)
    assert morning.astimezone(timezone(timedelta(hours=-12))).date() == date(2026, 2, 28)
    assert due_date(2026, 2, 28, morning) == date(2026, 2, 28)
    with pytest.raises(InvalidDueDate):
        due_date(2026, 2, 28, morning + timedelta(minutes=1))


def test_each_party_may_do_its_own() -> None:
    for party in ("usr_payee", "usr_payer"):
        assert OPEN.has_party(party)
    OPEN.require_payer("usr_payer")
    OPEN.require_payee("usr_payee")
    assert not OPEN.has_party("usr_other")
    with pytest.raises(NotThePayerOfInvoice):
        OPEN.require_payer("usr_payee")
    with pytest.raises(NotThePayeeOfInvoice):
        OPEN.require_payee("usr_payer")


def test_only_an_open_invoice_that_nobody_is_paying_is_free() -> None:
    OPEN.require_free("")
    OPEN.require_free("1")
    with pytest.raises(InvoicePaymentUnderWay) as under_way:
        BEING_PAID.require_free("")
    assert under_way.value.metadata == {"invoice_id": "inv_1", "payment_id": "pay_1"}
    for invoice in (PAID, OPEN.voided(NOW)):
        with pytest.raises(InvoiceNotOpen) as not_open:
            invoice.require_free("")
        assert not_open.value.metadata["state"] == invoice.state.name
        assert not_open.value.preconditions[0].subject == "inv_1"


def test_whoever_knows_an_older_version_is_told_so_before_anything_else() -> None:
    with pytest.raises(EtagMismatch):
        PAID.require_free("1")


def test_an_invoice_taken_back_is_a_new_version() -> None:
    later = NOW + timedelta(hours=1)
    void = OPEN.voided(later)
    assert (void.state, void.etag, void.update_time) == (State.VOID, "2", later)
