"""All SQL of payments and the ledger.

Accounts are locked in the order of their ids, and so that rows that refer to them can be written meanwhile (FOR NO KEY
UPDATE): a payment that is added and one that is settled cannot wait for each other.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import asyncpg
from google.protobuf.message import Message

from services.payment import events
from services.payment.domain import (
    STARTING_CURRENCY,
    Account,
    AccountAlreadyExists,
    AccountNotFound,
    BalanceLimitExceeded,
    Change,
    Entry,
    Money,
    Payment,
    PaymentNotFound,
    State,
)
from services.runtime import idempotency
from services.runtime.events import Outbox
from services.runtime.ids import new_id
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database

Answer = TypeVar("Answer", bound=Message)

_ADD_PAYMENT = """
    INSERT INTO payments (id, payer_id, payee_id, payer_account_id, payee_account_id, currency_code, amount,
        description, state, state_reason, risk_score, sequence, create_time, update_time, settle_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"""
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

_OPEN_ACCOUNT = """
    INSERT INTO accounts (id, owner_id, currency_code, clearing, create_time) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (owner_id, currency_code) DO NOTHING RETURNING *"""
_ACCOUNTS_IN = "SELECT * FROM accounts WHERE owner_id = ANY($1::text[]) AND currency_code = $2"
_ACCOUNTS_OF = "SELECT * FROM accounts WHERE owner_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2"
_GET_ACCOUNT = "SELECT * FROM accounts WHERE id = $1 AND NOT clearing"
_CLEARING = "SELECT id FROM accounts WHERE clearing AND currency_code = $1"
_LOCK_ACCOUNTS = "SELECT * FROM accounts WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE"
_RESERVE = "UPDATE accounts SET reserved = reserved + $2 WHERE id = $1 AND balance - reserved >= $2"
_RELEASE = "UPDATE accounts SET reserved = reserved - $2 WHERE id = $1"
_ADD_ENTRIES = """
    INSERT INTO entries (id, transaction_id, account_id, currency_code, amount, payment_id, kind, create_time)
    SELECT id, $1, account_id, $2, amount, $3, $4, $5
    FROM unnest($6::text[], $7::text[], $8::bigint[]) AS entry (id, account_id, amount)"""
_LIST_ENTRIES = "SELECT * FROM entries WHERE account_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2"


class Ledger:
    """Accounts, what they hold, and how it came there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_account(self, owner_id: str, currency_code: str, now: datetime) -> Account:
        """Opens an account. Raises AccountAlreadyExists."""
        row = await self._database.fetchrow(_OPEN_ACCOUNT, new_id("acc"), owner_id, currency_code, False, now)
        if row is None:
            raise AccountAlreadyExists(currency_code=currency_code)
        return _account(row)

    async def accounts_in(self, currency_code: str, owner_ids: Sequence[str], now: datetime) -> dict[str, Account]:
        """Returns the owners' accounts in a currency, by owner. The one that everybody starts with is opened here."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_ACCOUNTS_IN, owner_ids, currency_code)
            if len(rows) < len(owner_ids) and currency_code == STARTING_CURRENCY:
                for owner_id in owner_ids:
                    await connection.execute(_OPEN_ACCOUNT, new_id("acc"), owner_id, currency_code, False, now)
                rows = await connection.fetch(_ACCOUNTS_IN, owner_ids, currency_code)
        return {row["owner_id"]: _account(row) for row in rows}

    async def account(self, account_id: str) -> Account:
        """Returns an account. Raises AccountNotFound."""
        row = await self._database.fetchrow(_GET_ACCOUNT, account_id)
        if row is None:
            raise AccountNotFound(account_id=account_id)
        return _account(row)

    async def accounts_of(self, owner_id: str, page: Page) -> list[Account]:
        """Returns an owner's accounts."""
        rows = await self._database.fetch(_ACCOUNTS_OF, page.before, page.rows, owner_id)
        return [_account(row) for row in rows]

    async def entries_of(self, account_id: str, page: Page) -> list[Entry]:
        """Returns an account's entries."""
        rows = await self._database.fetch(_LIST_ENTRIES, page.before, page.rows, account_id)
        return [_entry(row) for row in rows]

    async def deposit(
        self, account_id: str, amount: Money, now: datetime, answer: Callable[[Account], Answer]
    ) -> Answer:
        """Moves money from outside into an account, records the answer to the request that did it, and returns that.

        Raises AccountNotFound, AccountCurrencyMismatch or BalanceLimitExceeded.
        """
        async with self._database.transaction() as connection:
            account = (await lock(connection, account_id)).get(account_id)
            if account is None:
                raise AccountNotFound(account_id=account_id)
            account.receives(amount)
            currency = amount.currency_code
            await connection.execute(_OPEN_ACCOUNT, new_id("acc"), "", currency, True, now)
            clearing = await connection.fetchval(_CLEARING, currency)
            await _post(connection, "DEPOSIT", None, currency, {account_id: amount.minor, clearing: -amount.minor}, now)
            row = await connection.fetchrow(_GET_ACCOUNT, account_id)
            assert row is not None  # noqa: S101  # it is locked
            answered = answer(_account(row))
            await idempotency.record(connection, answered)
        return answered


class Payments:
    """Payments and their events; each change with its event, its money and its outbox row in one transaction."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add(self, payment: Payment, settle_time: datetime, answer: Callable[[Payment], Answer]) -> Answer:
        """Adds a new payment, records the answer to the request that made it, and returns that.

        The payment is DECLINED for INSUFFICIENT_FUNDS where the money is not there.
        """
        async with self._outbox.transaction() as connection:
            if payment.state.holds_money:
                done = await connection.execute(_RESERVE, payment.payer_account_id, payment.amount.minor)
                if done == "UPDATE 0":
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
            accounts = await lock(connection, payment.payer_account_id, payment.payee_account_id)
            await connection.execute(_RELEASE, payment.payer_account_id, payment.amount.minor)
            try:
                accounts[payment.payee_account_id].receives(payment.amount)
            except BalanceLimitExceeded as error:
                payment = payment.became(State.FAILED, error.reason, now)
            else:
                minor, currency = payment.amount.minor, payment.amount.currency_code
                moved = {payment.payer_account_id: -minor, payment.payee_account_id: minor}
                await _post(connection, "PAYMENT", payment.id, currency, moved, now)
                payment = payment.became(State.SETTLED, "", now)
            await connection.execute(
                _UPDATE_PAYMENT, payment.id, payment.state.name, payment.state_reason, payment.sequence, now
            )
            await self._tell(connection, payment)

    async def _tell(self, connection: Connection, payment: Payment) -> None:
        """Tells others of the state that a payment came to. (The database writes its own event by a trigger.)"""
        await self._outbox.add(connection, payment.id, payment.sequence, events.to_proto(payment, payment.change()))


async def lock(connection: Connection, *account_ids: str) -> dict[str, Account]:
    """Returns accounts by id, as nobody else can change them before the transaction ends."""
    return {row["id"]: _account(row) for row in await connection.fetch(_LOCK_ACCOUNTS, account_ids)}


async def _post(
    connection: Connection,
    kind: str,
    payment_id: str | None,
    currency_code: str,
    moved: dict[str, int],
    now: datetime,
) -> None:
    """Writes one ledger transaction: what each account gains (or loses), in the order of their ids."""
    accounts = sorted(moved)
    entry_ids = [new_id("ent") for _ in accounts]
    amounts = [moved[account] for account in accounts]
    await connection.execute(
        _ADD_ENTRIES, new_id("txn"), currency_code, payment_id, kind, now, entry_ids, accounts, amounts
    )


def _account(row: asyncpg.Record) -> Account:
    currency = row["currency_code"]
    balance, reserved = Money(currency, row["balance"]), Money(currency, row["reserved"])
    return Account(row["id"], row["owner_id"], balance, reserved, row["create_time"])


def _entry(row: asyncpg.Record) -> Entry:
    amount = Money(row["currency_code"], row["amount"])
    return Entry(row["id"], row["account_id"], amount, row["payment_id"] or "", row["kind"], row["create_time"])


def _payment(row: asyncpg.Record) -> Payment:
    return Payment(
        id=row["id"],
        payer_id=row["payer_id"],
        payee_id=row["payee_id"],
        payer_account_id=row["payer_account_id"],
        payee_account_id=row["payee_account_id"],
        amount=Money(row["currency_code"], row["amount"]),
        description=row["description"],
        state=State[row["state"]],
        state_reason=row["state_reason"],
        risk_score=row["risk_score"],
        sequence=row["sequence"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
