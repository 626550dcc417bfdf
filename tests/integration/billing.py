"""Invoices as their parties handle them, and what must hold of all of them."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import grpc
from google.type.date_pb2 import Date
from google.type.money_pb2 import Money as MoneyProto
from payment.v1 import invoice_pb2, invoice_pb2_grpc, payment_pb2

from services.runtime.ids import new_id
from tests.integration.paying import House, euros
from tests.integration.serving import reason

OPEN, PAID, VOID = invoice_pb2.Invoice.OPEN, invoice_pb2.Invoice.PAID, invoice_pb2.Invoice.VOID


def bills(house: House, user_id: str, *roles: str, **metadata: str) -> "invoice_pb2_grpc.InvoiceServiceAsyncStub":
    return invoice_pb2_grpc.InvoiceServiceStub(house.edge.user(user_id, *(roles or ("customer",)), **metadata))


def line(amount: MoneyProto, quantity: int = 1) -> invoice_pb2.InvoiceLine:
    return invoice_pb2.InvoiceLine(description="Tuning", quantity=quantity, unit_amount=amount)


def asking(payer: str, *lines: invoice_pb2.InvoiceLine, due: Date | None = None) -> invoice_pb2.CreateInvoiceRequest:
    soon = datetime.now(UTC) + timedelta(days=14)
    due = due or Date(year=soon.year, month=soon.month, day=soon.day)
    return invoice_pb2.CreateInvoiceRequest(payer_id=payer, lines=lines, due_date=due, description="Piano, May")


async def issued(house: House, payee: str, payer: str, units: int = 10) -> invoice_pb2.Invoice:
    return await bills(house, payee).CreateInvoice(asking(payer, line(euros(units))))


async def now(house: House, invoice: invoice_pb2.Invoice) -> invoice_pb2.Invoice:
    return await bills(house, invoice.payee_id).GetInvoice(invoice_pb2.GetInvoiceRequest(invoice_id=invoice.id))


async def pay(house: House, invoice: invoice_pb2.Invoice, key: str = "", etag: str = "") -> payment_pb2.Payment:
    request = invoice_pb2.PayInvoiceRequest(invoice_id=invoice.id, etag=etag)
    return await bills(house, invoice.payer_id, idempotency_key=key or new_id("key")).PayInvoice(request)


async def void(house: House, invoice: invoice_pb2.Invoice, etag: str = "") -> invoice_pb2.Invoice:
    request = invoice_pb2.VoidInvoiceRequest(invoice_id=invoice.id, etag=etag)
    return await bills(house, invoice.payee_id).VoidInvoice(request)


async def is_paid(house: House, invoice: invoice_pb2.Invoice) -> bool:
    return (await now(house, invoice)).state == PAID


async def refusals(*calls: Awaitable[object]) -> list[str]:
    """The reasons of those calls that failed, when all are made at once."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    failures = [one for one in answers if isinstance(one, BaseException)]
    return [reason(one) if isinstance(one, grpc.aio.AioRpcError) else repr(one) for one in failures]


async def contradictions(house: House) -> list[str]:
    """The invoices that are PAID without a payment that settled, or the other way round, in one snapshot."""
    rows = await house.database.fetch("""
        SELECT invoices.id FROM invoices
        LEFT JOIN payments ON invoice_id = invoices.id AND payments.state IN ('SETTLED', 'REFUNDED')
        GROUP BY invoices.id
        HAVING count(payments.id) <> (invoices.state = 'PAID')::int
            OR count(payments.id) > 0 AND min(payments.id) <> invoices.payment_id""")
    return [row["id"] for row in rows]
