"""All SQL of payments. A payment is locked before the accounts that it moves money between."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

import asyncpg

from services.payment import events
from services.payment.domain import Payment, PaymentNotFound, State
from services.payment.invoices import store as invoices
from services.payment.invoices.domain import ToPay
from services.payment.ledger import store as ledger
from services.payment.ledger.domain import BalanceLimitExceeded, Money
from services.runtime import audit, idempotency
from services.runtime.idempotency import Answer
from services.runtime.outbox import Outbox
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database

Step: TypeAlias = Callable[[Payment], Payment]
"""Makes of a payment what it becomes, or raises why it must not."""

_ADD_PAYMENT = """
    INSERT INTO payments (id, payer_id, payee_id, payer_account_id, payee_account_id, currency_code, amount,
        description, state, state_reason, risk_score, sequence, create_time, update_time, settle_time,
        invoice_id, review_expire_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"""
_UPDATE_PAYMENT = """
    UPDATE payments SET state = $2, state_reason = $3, sequence = $4, update_time = $5, refunded = $6,
        settle_time = $7, review_expire_time = $8
    WHERE id = $1"""
_GET_PAYMENT = "SELECT * FROM payments WHERE id = $1"
_LOCK_PAYMENT = _GET_PAYMENT + " FOR NO KEY UPDATE"
_LIST_PAYMENTS = "SELECT * FROM payments WHERE id < $1 ORDER BY id DESC LIMIT $2"
_LIST_PAYMENTS_IN = "SELECT * FROM payments WHERE state = $3 AND id < $1 ORDER BY id DESC LIMIT $2"
_LIST_PAYMENTS_OF = """
    (SELECT * FROM payments WHERE payer_id = $3 AND ($4::text IS NULL OR state = $4) AND id < $1
        ORDER BY id DESC LIMIT $2)
    UNION ALL
    (SELECT * FROM payments WHERE payee_id = $3 AND ($4::text IS NULL OR state = $4) AND id < $1
        ORDER BY id DESC LIMIT $2)
    ORDER BY id DESC LIMIT $2"""
_CLAIM_DUE = """
    UPDATE payments SET settle_time = now() + interval '1 second' * $2::float8
    WHERE id IN (
        SELECT id FROM payments WHERE settle_time <= now() ORDER BY settle_time LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING id"""
_POSTPONE = """
    UPDATE payments SET settle_failures = settle_failures + 1,
        settle_time = now() + interval '1 second' * power(2, least(settle_failures, $2::integer))
    WHERE id = $1 AND settle_time IS NOT NULL RETURNING settle_failures"""
_LIST_EXPIRED = "SELECT id FROM payments WHERE review_expire_time <= now() ORDER BY review_expire_time LIMIT $1"

_LEASE_SECONDS = 5.0
_LONGEST_WAIT = 3
"""As a power of two: 8 s between the later attempts to settle."""


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
                payment.review_expire_time,
            )
            await self._tell(connection, payment)
            await audit.record(connection, f"payments/{payment.id}")
            if payment.invoice_id:
                await audit.record(connection, f"invoices/{payment.invoice_id}")
            answered = answer(payment)
            await idempotency.record(connection, answered)
        return answered

    async def get(self, payment_id: str) -> Payment:
        """Returns a payment. Raises PaymentNotFound."""
        row = await self._database.fetchrow(_GET_PAYMENT, payment_id)
        if row is None:
            raise PaymentNotFound(payment_id=payment_id)
        return _payment(row)

    async def list_all(self, state: State | None, page: Page) -> list[Payment]:
        """Returns everybody's payments, in a state or in any."""
        if state is None:
            rows = await self._database.fetch(_LIST_PAYMENTS, page.before, page.rows)
        else:
            rows = await self._database.fetch(_LIST_PAYMENTS_IN, page.before, page.rows, state.name)
        return [_payment(row) for row in rows]

    async def list_of(self, user_id: str, state: State | None, page: Page) -> list[Payment]:
        """Returns the payments that a user makes or receives, in a state or in any."""
        wanted = state.name if state else None
        rows = await self._database.fetch(_LIST_PAYMENTS_OF, page.before, page.rows, user_id, wanted)
        return [_payment(row) for row in rows]

    async def change(self, payment_id: str, step: Step) -> Payment:
        """Takes one step in a payment's life and moves the money that goes with it. Returns the payment after it.

        Raises PaymentNotFound, what `step` raises, and for a refund InsufficientFunds or BalanceLimitExceeded.
        """
        async with self._outbox.transaction() as connection:
            return await self._change(connection, payment_id, step)

    async def change_once(self, payment_id: str, step: Step, answer: Callable[[Payment], Answer]) -> Answer:
        """Does what `change` does, records the answer to the request for it, and returns that."""
        async with self._outbox.transaction() as connection:
            answered = answer(await self._change(connection, payment_id, step))
            await idempotency.record(connection, answered)
        return answered

    async def settle(self, payment_id: str, now: datetime) -> None:
        """Moves the money of an AUTHORIZED payment, or releases it where the payee's account cannot take it."""
        async with self._outbox.transaction() as connection:
            before = await _lock(connection, payment_id)
            if before.state is not State.AUTHORIZED:
                return
            try:
                await self._become(connection, before, before.settled(now))
            except BalanceLimitExceeded as error:  # raised before anything was written
                await self._become(connection, before, before.failed(error.reason, now))

    async def claim_due(self, limit: int) -> list[str]:
        """Returns payments to settle now. Those that are not settled, for a crash, say, come again after a while."""
        return [row["id"] for row in await self._database.fetch(_CLAIM_DUE, limit, _LEASE_SECONDS)]

    async def postpone(self, payment_id: str) -> int:
        """Notes that a payment could not be settled: it comes again, later every time. Returns how often it failed."""
        row = await self._database.fetchrow(_POSTPONE, payment_id, _LONGEST_WAIT)
        return row["settle_failures"] if row else 0

    async def expired(self, limit: int) -> list[str]:
        """Returns payments whose review took too long."""
        return [row["id"] for row in await self._database.fetch(_LIST_EXPIRED, limit)]

    async def _change(self, connection: Connection, payment_id: str, step: Step) -> Payment:
        before = await _lock(connection, payment_id)
        after = step(before)
        await self._become(connection, before, after)
        await audit.record(connection, f"payments/{payment_id}")
        return after

    async def _become(self, connection: Connection, before: Payment, after: Payment) -> None:
        await _move_money(connection, before, after)
        await connection.execute(
            _UPDATE_PAYMENT,
            after.id,
            after.state.name,
            after.state_reason,
            after.sequence,
            after.update_time,
            after.refunded_minor,
            after.update_time if after.state is State.AUTHORIZED else None,
            after.review_expire_time,
        )
        await self._tell(connection, after)

    async def _tell(self, connection: Connection, payment: Payment) -> None:
        """Tells others of the state that a payment came to. (The database writes its own event by a trigger.)"""
        await self._outbox.add(connection, payment.id, payment.sequence, events.to_proto(payment.change()))


async def _lock(connection: Connection, payment_id: str) -> Payment:
    """Returns a payment, as nobody else can change it before the transaction ends. Raises PaymentNotFound."""
    row = await connection.fetchrow(_LOCK_PAYMENT, payment_id)
    if row is None:
        raise PaymentNotFound(payment_id=payment_id)
    return _payment(row)


async def _move_money(connection: Connection, before: Payment, after: Payment) -> None:
    """Does to the accounts what a step in a payment's life means."""
    released = before.state.holds_money and not after.state.holds_money
    back = Money(after.amount.currency_code, after.refunded_minor - before.refunded_minor)
    if not released and not back.minor:
        return
    payer, payee = after.payer_account_id, after.payee_account_id
    accounts = await ledger.lock(connection, payer, payee)
    settled = released and after.state is State.SETTLED
    if settled:
        accounts[payee].receives(after.amount)
    if released:
        await ledger.release(connection, payer, after.amount)
    if settled:
        await ledger.transfer(connection, "PAYMENT", after.id, payer, payee, after.amount, after.update_time)
    if back.minor:
        accounts[payee].gives(back)
        accounts[payer].receives(back)
        await ledger.transfer(connection, "REFUND", after.id, payee, payer, back, after.update_time)


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
        refunded_minor=row["refunded"],
        review_expire_time=row["review_expire_time"],
    )
