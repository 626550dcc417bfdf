"""The servicer of invoices: proto to domain to proto."""

from datetime import UTC, datetime
from typing import Any

import grpc
from google.type import date_pb2
from payment.v1 import invoice_pb2, invoice_pb2_grpc, payment_pb2

from services.payment import money
from services.payment import service as payments
from services.payment.authorization import Authorization
from services.payment.clients import Users
from services.payment.invoices import domain
from services.payment.invoices.domain import (
    Invoice,
    InvoiceToSelf,
    Line,
    NotAPartyToInvoice,
    PayerNotFound,
    State,
    ToPay,
)
from services.payment.invoices.store import Invoices
from services.payment.parties import require_parties
from services.runtime import caller, paging
from services.runtime.ids import new_id

Context = grpc.aio.ServicerContext[Any, Any]


class InvoiceService(invoice_pb2_grpc.InvoiceServiceServicer):
    """See proto/payment/v1/invoice.proto."""

    def __init__(self, invoices: Invoices, authorization: Authorization, users: Users) -> None:
        self._invoices = invoices
        self._authorization = authorization
        self._users = users

    async def CreateInvoice(self, request: invoice_pb2.CreateInvoiceRequest, _: Context) -> invoice_pb2.Invoice:
        payee_id, now = caller.current().user_id, datetime.now(UTC)
        lines = [_line(place, line) for place, line in enumerate(request.lines)]
        amount = domain.total(lines)
        money.require_payable(amount, "lines")
        due = domain.due_date(request.due_date.year, request.due_date.month, request.due_date.day, now)
        await self._require_parties(request.payer_id, payee_id)
        invoice = Invoice(
            id=new_id("inv"),
            payee_id=payee_id,
            payer_id=request.payer_id,
            lines=lines,
            amount=amount,
            due_date=due,
            description=request.description,
            state=State.OPEN,
            payment_id="",
            sequence=1,
            create_time=now,
            update_time=now,
        )
        await self._invoices.add(invoice)
        return _invoice(invoice)

    async def GetInvoice(self, request: invoice_pb2.GetInvoiceRequest, _: Context) -> invoice_pb2.Invoice:
        invoice, who = await self._invoices.get(request.invoice_id), caller.current()
        if not invoice.has_party(who.user_id) and not who.sees_as("officer", "admin"):
            raise NotAPartyToInvoice(invoice_id=invoice.id)
        return _invoice(invoice)

    async def ListInvoices(
        self, request: invoice_pb2.ListInvoicesRequest, _: Context
    ) -> invoice_pb2.ListInvoicesResponse:
        user_id, state = caller.current().user_id, State(request.state) if request.state else None
        page = paging.page(request.page_size, request.page_token, "invoices", user_id, state.name if state else "")
        rows = await self._invoices.list_of(user_id, state, page)
        invoices, token = page.cut(rows, lambda invoice: invoice.id)
        return invoice_pb2.ListInvoicesResponse(invoices=map(_invoice, invoices), next_page_token=token)

    async def PayInvoice(self, request: invoice_pb2.PayInvoiceRequest, _: Context) -> payment_pb2.Payment:
        invoice = await self._invoices.get(request.invoice_id)
        invoice.require_payer(caller.current().user_id)
        invoice.require_free(request.etag)
        return await self._authorization.authorize(
            invoice.payer_id,
            invoice.payee_id,
            invoice.amount,
            invoice.description,
            payments.to_proto,
            ToPay(invoice.id, request.etag),
        )

    async def VoidInvoice(self, request: invoice_pb2.VoidInvoiceRequest, _: Context) -> invoice_pb2.Invoice:
        user_id, now = caller.current().user_id, datetime.now(UTC)

        def void(invoice: Invoice) -> Invoice:
            invoice.require_payee(user_id)
            invoice.require_free(request.etag)
            return invoice.voided(now)

        return _invoice(await self._invoices.update(request.invoice_id, void))

    async def _require_parties(self, payer_id: str, payee_id: str) -> None:
        if payer_id == payee_id:
            raise InvoiceToSelf
        parties = await self._users.parties(payer_id, payee_id)
        if payer_id not in parties:
            raise PayerNotFound(payer_id=payer_id)
        require_parties(parties[payer_id], parties.get(payee_id), payer_id, payee_id)


def _line(place: int, line: invoice_pb2.InvoiceLine) -> Line:
    unit_amount = money.read(line.unit_amount, f"lines[{place}].unitAmount")
    return Line(line.description, line.quantity or 1, unit_amount)


def _invoice(invoice: Invoice) -> invoice_pb2.Invoice:
    due = invoice.due_date
    proto = invoice_pb2.Invoice(
        id=invoice.id,
        payee_id=invoice.payee_id,
        payer_id=invoice.payer_id,
        amount=money.write(invoice.amount),
        due_date=date_pb2.Date(year=due.year, month=due.month, day=due.day),
        description=invoice.description,
        state=invoice_pb2.Invoice.State.ValueType(invoice.state.value),
        payment_id=invoice.payment_id,
        etag=invoice.etag,
    )
    for line in invoice.lines:
        proto.lines.add(description=line.description, quantity=line.quantity, unit_amount=money.write(line.unit_amount))
    proto.create_time.FromDatetime(invoice.create_time)
    proto.update_time.FromDatetime(invoice.update_time)
    return proto
