"""All SQL of invoices.

Paying locks the invoice before accounts, settling does it after them (by a trigger). No cycle comes of it: who pays
goes on to accounts only where no payment of the invoice is under way that could be settled.
"""

import json
from collections.abc import Callable
from typing import Any

import asyncpg

from services.payment.invoices.domain import Invoice, InvoiceNotFound, Line, State, ToPay
from services.payment.ledger.domain import Money
from services.runtime import audit
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database

_ADD_INVOICE = """
    INSERT INTO invoices (id, payee_id, payer_id, lines, currency_code, amount, due_date, description, state,
        sequence, create_time, update_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"""
_UPDATE_INVOICE = "UPDATE invoices SET state = $2, sequence = $3, update_time = $4 WHERE id = $1"
_GET_INVOICE = "SELECT * FROM invoices WHERE id = $1"
_LOCK_INVOICE = "SELECT * FROM invoices WHERE id = $1 FOR NO KEY UPDATE"
# Without lines: a page of the longest invoices would be 300 MB.
_SUMMARY = """id, payee_id, payer_id, '[]' AS lines, currency_code, amount, due_date, description, state, payment_id,
        sequence, create_time, update_time"""
_LIST_INVOICES_OF = f"""
    (SELECT {_SUMMARY} FROM invoices WHERE payee_id = $3 AND ($4::text IS NULL OR state = $4) AND id < $1
        ORDER BY id DESC LIMIT $2)
    UNION ALL
    (SELECT {_SUMMARY} FROM invoices WHERE payer_id = $3 AND ($4::text IS NULL OR state = $4) AND id < $1
        ORDER BY id DESC LIMIT $2)
    ORDER BY id DESC LIMIT $2"""  # noqa: S608  # both texts are here


class Invoices:
    """Invoices. What a payment makes of its invoice, the database does: see the trigger follow_payment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, invoice: Invoice) -> None:
        """Adds a new invoice."""
        async with self._database.transaction() as connection:
            await connection.execute(
                _ADD_INVOICE,
                invoice.id,
                invoice.payee_id,
                invoice.payer_id,
                json.dumps([_written(line) for line in invoice.lines]),
                invoice.amount.currency_code,
                invoice.amount.minor,
                invoice.due_date,
                invoice.description,
                invoice.state.name,
                invoice.sequence,
                invoice.create_time,
                invoice.update_time,
            )
            await audit.record(connection, f"invoices/{invoice.id}")

    async def get(self, invoice_id: str) -> Invoice:
        """Returns an invoice. Raises InvoiceNotFound."""
        return _found(await self._database.fetchrow(_GET_INVOICE, invoice_id), invoice_id)

    async def list_of(self, user_id: str, state: State | None, page: Page) -> list[Invoice]:
        """Returns the invoices that a user issued or is asked to pay, in a state or in any; without their lines."""
        wanted = state.name if state else None
        rows = await self._database.fetch(_LIST_INVOICES_OF, page.before, page.rows, user_id, wanted)
        return [_invoice(row) for row in rows]

    async def update(self, invoice_id: str, change: Callable[[Invoice], Invoice]) -> Invoice:
        """Writes what `change` makes of an invoice, and returns it. Raises InvoiceNotFound and what `change` raises."""
        async with self._database.transaction() as connection:
            invoice = change(_found(await connection.fetchrow(_LOCK_INVOICE, invoice_id), invoice_id))
            await connection.execute(
                _UPDATE_INVOICE, invoice.id, invoice.state.name, invoice.sequence, invoice.update_time
            )
            await audit.record(connection, f"invoices/{invoice.id}")
        return invoice


async def lock_to_pay(connection: Connection, wanted: ToPay) -> None:
    """Locks an invoice for the payment that is added next in this transaction. Raises what require_free does."""
    row = await connection.fetchrow(_LOCK_INVOICE, wanted.invoice_id)
    _found(row, wanted.invoice_id).require_free(wanted.etag)


def _found(row: asyncpg.Record | None, invoice_id: str) -> Invoice:
    if row is None:
        raise InvoiceNotFound(invoice_id=invoice_id)
    return _invoice(row)


def _invoice(row: asyncpg.Record) -> Invoice:
    currency = row["currency_code"]
    return Invoice(
        id=row["id"],
        payee_id=row["payee_id"],
        payer_id=row["payer_id"],
        lines=[_line(line, currency) for line in json.loads(row["lines"])],
        amount=Money(currency, row["amount"]),
        due_date=row["due_date"],
        description=row["description"],
        state=State[row["state"]],
        payment_id=row["payment_id"] or "",
        sequence=row["sequence"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )


def _written(line: Line) -> dict[str, Any]:
    return {"description": line.description, "quantity": line.quantity, "unit_amount": line.unit_amount.minor}


def _line(written: dict[str, Any], currency_code: str) -> Line:
    return Line(written["description"], written["quantity"], Money(currency_code, written["unit_amount"]))
