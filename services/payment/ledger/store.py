"""All SQL of the ledger.

Accounts are locked in the order of their ids, and so that rows that refer to them can be written meanwhile (FOR NO KEY
UPDATE): a payment that is added and one that is settled cannot wait for each other.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

import asyncpg

from services.payment.ledger.domain import (
    STARTING_CURRENCY,
    Account,
    AccountAlreadyExists,
    AccountNotFound,
    Entry,
    Money,
)
from services.runtime import audit, idempotency
from services.runtime.idempotency import Answer
from services.runtime.ids import new_id
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database

_OPEN_ACCOUNT = """
    INSERT INTO accounts (id, owner_id, currency_code, clearing, create_time) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (owner_id, currency_code) DO NOTHING RETURNING *"""
_ACCOUNTS_IN = "SELECT * FROM accounts WHERE owner_id = ANY($1::text[]) AND currency_code = $2"
_ACCOUNTS_OF = "SELECT * FROM accounts WHERE owner_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2"
_GET_ACCOUNT = "SELECT * FROM accounts WHERE id = $1 AND NOT clearing"
_CLEARING = "SELECT id FROM accounts WHERE clearing AND currency_code = $1"
_LOCK_ACCOUNTS = """
    SELECT * FROM accounts WHERE id = ANY($1::text[]) AND NOT clearing ORDER BY id FOR NO KEY UPDATE"""
_RESERVE = "UPDATE accounts SET reserved = reserved + $2 WHERE id = $1 AND balance - reserved >= $2"
_RELEASE = "UPDATE accounts SET reserved = reserved - $2 WHERE id = $1"
_ADD_ENTRIES = """
    INSERT INTO entries (id, transaction_id, account_id, currency_code, amount, payment_id, kind, create_time)
    SELECT id, $1, account_id, $2, amount, $3, $4, $5
    FROM unnest($6::text[], $7::text[], $8::bigint[]) AS entry (id, account_id, amount)"""
_LIST_ENTRIES = """
    SELECT * FROM entries WHERE account_id = $3
        AND (position, id) < (coalesce((SELECT position FROM entries WHERE id = $1), 9223372036854775807), $1)
    ORDER BY position DESC, id DESC LIMIT $2"""


class Ledger:
    """Accounts, what they hold, and how it came there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_account(self, owner_id: str, currency_code: str, now: datetime) -> Account:
        """Opens an account. Raises AccountAlreadyExists."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_OPEN_ACCOUNT, new_id("acc"), owner_id, currency_code, False, now)
            if row is None:
                raise AccountAlreadyExists(currency_code=currency_code)
            await audit.record(connection, f"accounts/{row['id']}")
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
        """Returns an account's entries, the last committed first."""
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
            await transfer(connection, "DEPOSIT", None, clearing, account_id, amount, now)
            row = await connection.fetchrow(_GET_ACCOUNT, account_id)
            assert row is not None  # noqa: S101  # it is locked
            await audit.record(connection, f"accounts/{account_id}")
            answered = answer(_account(row))
            await idempotency.record(connection, answered)
        return answered


async def lock(connection: Connection, *account_ids: str) -> dict[str, Account]:
    """Returns accounts by id, as nobody else can change them before the transaction ends."""
    return {row["id"]: _account(row) for row in await connection.fetch(_LOCK_ACCOUNTS, account_ids)}


async def reserve(connection: Connection, account_id: str, amount: Money) -> bool:
    """Holds money for a payment. Returns whether there was enough that can be spent."""
    return await connection.execute(_RESERVE, account_id, amount.minor) == "UPDATE 1"


async def release(connection: Connection, account_id: str, amount: Money) -> None:
    """Lets go of money that was held for a payment."""
    await connection.execute(_RELEASE, account_id, amount.minor)


async def transfer(
    connection: Connection,
    kind: str,
    payment_id: str | None,
    from_id: str,
    to_id: str,
    amount: Money,
    now: datetime,
) -> None:
    """Writes one ledger transaction: an amount moves from one account to another."""
    gained = {from_id: -amount.minor, to_id: amount.minor}
    account_ids = sorted(gained)
    entry_ids = [new_id("ent") for _ in account_ids]
    amounts = [gained[account_id] for account_id in account_ids]
    await connection.execute(
        _ADD_ENTRIES, new_id("txn"), amount.currency_code, payment_id, kind, now, entry_ids, account_ids, amounts
    )


def _account(row: asyncpg.Record) -> Account:
    currency = row["currency_code"]
    balance, reserved = Money(currency, row["balance"]), Money(currency, row["reserved"])
    return Account(row["id"], row["owner_id"], balance, reserved, row["create_time"])


def _entry(row: asyncpg.Record) -> Entry:
    amount = Money(row["currency_code"], row["amount"])
    return Entry(row["id"], row["account_id"], amount, row["payment_id"] or "", row["kind"], row["create_time"])
