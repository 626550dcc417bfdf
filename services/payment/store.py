"""All SQL of payments. A payment is locked before the accounts that it moves money between."""

from collections.abc import Callable
from datetime import datetime

import asyncpg

from services.payment import events
from services.payment.domain import Change, Payment, PaymentNotFound, State
from services.payment.invoices import store as invoices
from services.payment.invoices.domain import ToPay
from services.payment.ledger import store as ledger
from services.payment.ledger.domain import BalanceLimitExceeded, Money
from services.runtime import idempotency
from services.runtime.events import Outbox
from services.runtime.idempotency import Answer
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database

_ADD_PAYMENT = """
    INSERT INTO payments (id, payer_id, payee_id, payer_account_id, payee_account_id, currency_code, amount,
        description, state, state_reason, risk_score, sequence, create_time, update_time, settle_time,
        invoice_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"""
_UPDATE_PAYMENT = """
    UPDATE payments SET state = $2, state_reason = $3, sequence = $4, update_time = $5, settle_time = NULL
    WHERE id = $1"""
_GET_PAYMENT = "SELECT * FROM payments WHERE id = $1"
_LIST_PAYMENTS = "SELECT * FROM payments WHERE id < $1 ORDER BY id DESC LIMIT $2"
_LIST_PAYMENTS_OF = """
    (SELECT * FROM payments WHERE payer_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2)
    UNION ALL (SELECT * FROM payments WHERE payee_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2)
    ORDER BY id DESC LIMIT $2"""
_LIST_EVENTS = """
    SELECT sequence, state, state_reason, create_time FROM payment_events
    WHERE payment_id = $1 AND sequence > $2 ORDER BY sequence"""
_CLAIM_DUE = """
    UPDATE payments SET settle_attempts = settle_attempts + 1,
        settle_time = now() + interval '1 second' * power(2, least(settle_attempts, 6))
    WHERE id IN (
        SELECT id FROM payments WHERE settle_time <= now() ORDER BY settle_time LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING id"""


class Payments:
    """Payments and their events; each change with its event, its money and its outbox row in one transaction."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add(
        self, payment: Payment, settle_time: datetime, answer: Callable[[Payment], Answer], invoice: ToPay | None = None
    ) -> Answer:
        """Adds a new payment, records the answer to the request that made it, and returns that.

        The payment is DECLINED for INSUFFICIENT_FUNDS where the money is not there. Raises what Invoice.require_free
        does, for the invoice that it is to pay.
        """
        async with self._outbox.transaction() as connection:
            if invoice is not None:
                await invoices.lock_to_pay(connection, invoice)
            if payment.state.holds_money and not await ledger.reserve(
                connection, payment.payer_account_id, payment.amount
            ):
                payment = payment.declined("INSUFFICIENT_FUNDS")
            await connection.execute(
                _ADD_PAYMENT,
                payment.id,
                payment.payer_id,
                payment.payee_id,
                payment.payer_account_id,
                payment.payee_account_id,
                payment.amount.currency_code,
                payment.amount.minor,
                payment.description,
                payment.state.name,
                payment.state_reason,
                payment.risk_score,
                payment.sequence,
                payment.create_time,
                payment.update_time,
                settle_time if payment.state is State.AUTHORIZED else None,
                payment.invoice_id or None,
            )
            await self._tell(connection, payment)
            answered = answer(payment)
            await idempotency.record(connection, answered)
        return answered

    async def get(self, payment_id: str) -> Payment:
        """Returns a payment. Raises PaymentNotFound."""
        row = await self._database.fetchrow(_GET_PAYMENT, payment_id)
        if row is None:
            raise PaymentNotFound(payment_id=payment_id)
        return _payment(row)

    async def list_all(self, page: Page) -> list[Payment]:
        """Returns everybody's payments."""
        rows = await self._database.fetch(_LIST_PAYMENTS, page.before, page.rows)
        return [_payment(row) for row in rows]

    async def list_of(self, user_id: str, page: Page) -> list[Payment]:
        """Returns the payments that a user makes or receives."""
        rows = await self._database.fetch(_LIST_PAYMENTS_OF, page.before, page.rows, user_id)
        return [_payment(row) for row in rows]

    async def changes(self, payment_id: str, after: int) -> list[Change]:
        """Returns a payment's changes after a sequence, oldest first."""
        rows = await self._database.fetch(_LIST_EVENTS, payment_id, after)
        return [Change(row["sequence"], State[row["state"]], row["state_reason"], row["create_time"]) for row in rows]

    async def claim_due(self, limit: int) -> list[str]:
        """Returns payments to settle now. Each comes again, later every time, until it is settled or failed."""
        return [row["id"] for row in await self._database.fetch(_CLAIM_DUE, limit)]

    async def settle(self, payment_id: str, now: datetime) -> None:
        """Moves the money of an AUTHORIZED payment, or releases it where the payee's account cannot take it."""
        async with self._outbox.transaction() as connection:
            row = await connection.fetchrow(_GET_PAYMENT + " FOR UPDATE", payment_id)
            if row is None or row["state"] != State.AUTHORIZED.name:
                return
            payment = _payment(row)
            accounts = await ledger.lock(connection, payment.payer_account_id, payment.payee_account_id)
            await ledger.release(connection, payment.payer_account_id, payment.amount)
            try:
                accounts[payment.payee_account_id].receives(payment.amount)
            except BalanceLimitExceeded as error:
                payment = payment.became(State.FAILED, error.reason, now)
            else:
                minor, currency = payment.amount.minor, payment.amount.currency_code
                moved = {payment.payer_account_id: -minor, payment.payee_account_id: minor}
                await ledger.post(connection, "PAYMENT", payment.id, currency, moved, now)
                payment = payment.became(State.SETTLED, "", now)
            await connection.execute(
                _UPDATE_PAYMENT, payment.id, payment.state.name, payment.state_reason, payment.sequence, now
            )
            await self._tell(connection, payment)

    async def _tell(self, connection: Connection, payment: Payment) -> None:
        """Tells others of the state that a payment came to. (The database writes its own event by a trigger.)"""
        await self._outbox.add(connection, payment.id, payment.sequence, events.to_proto(payment, payment.change()))


def _payment(row: asyncpg.Record) -> Payment:
    return Payment(
        id=row["id"],
        payer_id=row["payer_id"],
        payee_id=row["payee_id"],
        payer_account_id=row["payer_account_id"],
        payee_account_id=row["payee_account_id"],
        amount=Money(row["currency_code"], row["amount"]),
        description=row["description"],
        invoice_id=row["invoice_id"] or "",
        state=State[row["state"]],
        state_reason=row["state_reason"],
        risk_score=row["risk_score"],
        sequence=row["sequence"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
