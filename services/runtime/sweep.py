"""Sweeps: rows that have outlived their use are deleted, a batch at a time, by whichever replica comes by."""

import asyncio
from datetime import timedelta

import structlog

from services.runtime.postgres import Database
from services.runtime.worker import repeat

EVERY_SECONDS = 3600.0
BATCH = 1000
IDEMPOTENCY_KEYS_KEPT = timedelta(hours=48)
"""24 hours are promised."""
HANDLED_EVENTS_KEPT = timedelta(days=38)
"""An event can come again for the 7 days of its stream, and then from the dead letters, which are kept for 30."""

# What is locked is in use, and is left to the next sweep.
_DELETE = """
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {table} WHERE {column} < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED))"""

_log = structlog.get_logger()


class Sweep:
    """The worker for one table. Several replicas do not disturb each other."""

    def __init__(self, database: Database, table: str, column: str, kept: timedelta) -> None:
        """Deletes the table's rows whose column, which has an index, is further back than `kept`."""
        self._database = database
        self._table = table
        self.statement = _DELETE.format(table=table, column=column)
        self._kept = kept

    async def run(self) -> None:
        """Sweeps, for ever."""
        await repeat(self.batch, asyncio.Event(), EVERY_SECONDS)

    async def batch(self) -> bool:
        """Deletes some rows. Returns whether there may be more."""
        async with self._database.connection() as connection:
            deleted = int((await connection.execute(self.statement, self._kept, BATCH)).removeprefix("DELETE "))
        if deleted:
            _log.info("swept", table=self._table, rows=deleted)
        return deleted == BATCH


def idempotency_keys(database: Database) -> Sweep:
    """Returns the sweep of what was answered longer ago than anybody repeats it."""
    return Sweep(database, "idempotency_keys", "create_time", IDEMPOTENCY_KEYS_KEPT)


def handled_events(database: Database) -> Sweep:
    """Returns the sweep of the notes on events that cannot come again."""
    return Sweep(database, "handled_events", "create_time", HANDLED_EVENTS_KEPT)
