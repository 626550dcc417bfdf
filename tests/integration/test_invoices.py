"""Invoices behind the payment service's interceptors: issued, seen and taken back."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from google.type.date_pb2 import Date
from google.type.money_pb2 import Money as MoneyProto
from payment.v1 import invoice_pb2

from services.runtime.ids import new_id
from tests.integration.billing import OPEN, VOID, asking, bills, issued, line, now, pay, void
from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, euros, open_house, refusal
from tests.integration.serving import detail, reason


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as opened:
        yield opened


@pytest.fixture(autouse=True)
def kind_neighbours(house: House) -> None:
    house.kind_neighbours()


async def test_an_invoice_is_for_the_sum_of_its_lines_and_both_sides_see_it(house: House) -> None:
    payee, payer = new_id("usr"), new_id("usr")
    request = asking(payer, line(euros(19, 990_000_000), quantity=3), line(euros(0, 30_000_000), quantity=0))
    call = bills(house, payee).CreateInvoice(request)
    invoice = await call
    assert dict(await call.initial_metadata())["location"] == f"/api/v1/invoices/{invoice.id}"
    assert (invoice.amount, invoice.state, invoice.etag) == (euros(60), OPEN, "1")
    assert (invoice.payee_id, invoice.payer_id, invoice.payment_id) == (payee, payer, "")
    assert [(one.description, one.quantity) for one in invoice.lines] == [("Tuning", 3), ("Tuning", 1)]
    assert invoice.lines[0].unit_amount == euros(19, 990_000_000)
    assert invoice.due_date == request.due_date
    asked = invoice_pb2.GetInvoiceRequest(invoice_id=invoice.id)
    for who in (bills(house, payer), bills(house, "usr_o", "officer"), bills(house, "usr_a", "admin")):
        assert await who.GetInvoice(asked) == invoice
    error = await refusal(bills(house, "usr_stranger").GetInvoice(asked))
    assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_PARTY_TO_INVOICE")
    unknown = invoice_pb2.GetInvoiceRequest(invoice_id="inv_unknown")
    assert reason(await refusal(bills(house, payer).GetInvoice(unknown))) == "INVOICE_NOT_FOUND"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "INVALID_REQUEST"),
        ([line(euros(1))] * 101, "INVALID_REQUEST"),
        ([line(euros(1), quantity=-1)], "INVALID_REQUEST"),
        ([invoice_pb2.InvoiceLine(unit_amount=euros(1))], "INVALID_REQUEST"),
        ([invoice_pb2.InvoiceLine(description="Tuning")], "INVALID_REQUEST"),
        ([invoice_pb2.InvoiceLine(description="Tu\0ning", unit_amount=euros(1))], "INVALID_REQUEST"),
        ([line(euros(0))], "INVALID_AMOUNT"),
        ([line(euros(-5)), line(euros(10))], "INVALID_AMOUNT"),
        ([line(euros(1, 1))], "INVALID_AMOUNT"),
        ([line(euros(10**12), quantity=2)], "INVALID_AMOUNT"),
        ([line(MoneyProto(currency_code="CLF", units=10**12), quantity=2**31 - 1)] * 100, "INVALID_AMOUNT"),
        ([line(MoneyProto(currency_code="XXX", units=1))], "UNKNOWN_CURRENCY"),
        ([line(euros(1)), line(MoneyProto(currency_code="USD", units=1))], "MIXED_CURRENCIES"),
    ],
)
async def test_lines_that_cannot_be_paid_are_refused(
    house: House, lines: list[invoice_pb2.InvoiceLine], expected: str
) -> None:
    error = await refusal(bills(house, new_id("usr")).CreateInvoice(asking(new_id("usr"), *lines)))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, expected)


async def test_a_wrong_line_is_named(house: House) -> None:
    request = asking(new_id("usr"), line(euros(1)), line(euros(0)))
    error = await refusal(bills(house, new_id("usr")).CreateInvoice(request))
    [violation] = detail(error, error_details_pb2.BadRequest()).field_violations
    assert violation.field == "lines[1].unitAmount.units"


async def test_an_invoice_has_a_day_to_be_paid_by_and_somebody_who_can(house: House) -> None:
    payee, payer = new_id("usr"), new_id("usr")
    for due in (Date(year=2027, month=2, day=29), Date(year=2030), Date(year=2020, month=1, day=1)):
        error = await refusal(bills(house, payee).CreateInvoice(asking(payer, line(euros(1)), due=due)))
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DUE_DATE")
    assert reason(await refusal(issued(house, payee, payee))) == "INVOICE_TO_SELF"
    house.users.suspended.add(payer)
    error = await refusal(issued(house, payee, payer))
    assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "PAYER_NOT_ACTIVE")
    house.users.unknown.add(payer)
    error = await refusal(issued(house, payee, payer))
    assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "PAYER_NOT_FOUND")
    assert not (await bills(house, payee).ListInvoices(invoice_pb2.ListInvoicesRequest())).invoices


async def test_both_sides_list_their_invoices_newest_first_and_in_a_state(house: House) -> None:
    one, other = new_id("usr"), new_id("usr")
    pairs = [(one, other), (other, one), (one, other), (one, new_id("usr")), (one, other)]
    made = [await issued(house, payee, payer) for payee, payer in pairs]
    await void(house, made[2])
    ids = [invoice.id for invoice in made[::-1]]
    stub = bills(house, one)
    first = await stub.ListInvoices(invoice_pb2.ListInvoicesRequest(page_size=2))
    await issued(house, other, one)
    rest = invoice_pb2.ListInvoicesRequest(page_token=first.next_page_token)
    second = await stub.ListInvoices(rest)
    assert [invoice.id for invoice in (*first.invoices, *second.invoices)] == ids
    assert second.next_page_token == ""
    assert {(invoice.amount.units, len(invoice.lines)) for invoice in first.invoices} == {(10, 0)}
    theirs = (await bills(house, other).ListInvoices(invoice_pb2.ListInvoicesRequest())).invoices
    assert [invoice.id for invoice in theirs][1:] == [ids[0], *ids[2:]]
    taken_back = invoice_pb2.ListInvoicesRequest(state=VOID)
    assert [invoice.id for invoice in (await stub.ListInvoices(taken_back)).invoices] == [made[2].id]
    rest.state = OPEN
    assert reason(await refusal(stub.ListInvoices(rest))) == "INVALID_PAGE_TOKEN"
    rest.state = invoice_pb2.Invoice.STATE_UNSPECIFIED
    assert reason(await refusal(bills(house, other).ListInvoices(rest))) == "INVALID_PAGE_TOKEN"
    officer = bills(house, "usr_officer", "officer")
    assert not (await officer.ListInvoices(invoice_pb2.ListInvoicesRequest())).invoices


async def test_only_its_payer_pays_an_invoice_and_only_its_payee_takes_it_back(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer)
    to_pay = invoice_pb2.PayInvoiceRequest(invoice_id=invoice.id)
    to_void = invoice_pb2.VoidInvoiceRequest(invoice_id=invoice.id)
    for who in (payee, "usr_stranger"):
        error = await refusal(bills(house, who, idempotency_key="k").PayInvoice(to_pay))
        assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_PAYER_OF_INVOICE")
    for who, role in ((payer, "customer"), ("usr_officer", "officer")):
        error = await refusal(bills(house, who, role).VoidInvoice(to_void))
        assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_PAYEE_OF_INVOICE")
    assert await now(house, invoice) == invoice
    unknown = invoice_pb2.VoidInvoiceRequest(invoice_id="inv_unknown")
    assert reason(await refusal(bills(house, payee).VoidInvoice(unknown))) == "INVOICE_NOT_FOUND"


async def test_an_invoice_taken_back_cannot_be_paid(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    invoice = await issued(house, payee, payer)
    taken_back = await void(house, invoice, etag="1")
    assert (taken_back.state, taken_back.etag) == (VOID, "2")
    assert await now(house, invoice) == taken_back
    assert reason(await refusal(pay(house, invoice))) == "INVOICE_NOT_OPEN"
    assert reason(await refusal(void(house, invoice))) == "INVOICE_NOT_OPEN"
    assert (await house.account(payer)).available == euros(100)


async def test_whoever_knows_an_older_version_neither_pays_nor_takes_back(house: House) -> None:
    payer, payee = await house.user_with(5), await house.user_with(0)
    invoice = await issued(house, payee, payer)
    assert (await void(house, invoice)).etag == "2"
    for call in (pay(house, invoice, etag="1"), void(house, invoice, etag="1")):
        error = await refusal(call)
        assert (error.code(), reason(error)) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
