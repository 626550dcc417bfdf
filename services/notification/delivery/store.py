"""All SQL of sending deliveries."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from services.notification.delivery.domain import Delivery, Message, Outcome
from services.runtime.ids import new_id
from services.runtime.postgres import Connection, Database
from services.runtime.sweep import Sweep

LEASE = timedelta(seconds=30)
"""After how long a delivery is tried again whose worker is gone. Longer than an attempt takes."""
KEPT = timedelta(days=30)
"""For how long what became of a delivery can be looked up. It is done long before."""
_COMMITTED_SECONDS = 0.02
"""How soon after it was added a delivery is usually committed. One that is not is found when the worker next looks."""

_ADD = """
    INSERT INTO deliveries (id, user_id, channel, webhook_id, event_id, event_type, payment_id, body,
        state, create_time, next_attempt_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'PENDING', now(), now())
    ON CONFLICT ON CONSTRAINT once_per_event DO NOTHING"""
# The first part hops through the index from target to target, however much is waiting for each of them.
_CLAIM = """
    WITH RECURSIVE hop AS (
        (SELECT target FROM deliveries WHERE state = 'PENDING' ORDER BY target LIMIT 1)
        UNION ALL
        SELECT (
            SELECT target FROM deliveries WHERE state = 'PENDING' AND target > hop.target ORDER BY target LIMIT 1
        ) FROM hop WHERE target IS NOT NULL
    ), targets AS (
        SELECT hop.target, coalesce(busy.room, $1) AS room
        FROM hop LEFT JOIN unnest($2::text[], $3::integer[]) AS busy (target, room) USING (target)
        WHERE hop.target IS NOT NULL
        ORDER BY hop.target LIKE 'whk%', room DESC, random()
    ), due AS (
        SELECT one.id FROM targets CROSS JOIN LATERAL (
            SELECT id FROM deliveries
            WHERE state = 'PENDING' AND target = targets.target AND next_attempt_time <= now() AND id <> ALL($4)
            ORDER BY next_attempt_time LIMIT targets.room FOR UPDATE SKIP LOCKED
        ) AS one LIMIT $5
    )
    UPDATE deliveries SET attempts = attempts + 1, last_attempt_time = now(), next_attempt_time = now() + $6
    FROM due WHERE deliveries.id = due.id
    RETURNING deliveries.id, user_id, channel, webhook_id, event_id, event_type, payment_id, body, attempts,
        create_time"""
# A worker that was too slow changes nothing: another one has claimed the delivery, and so counted an attempt.
_RECORD = """
    UPDATE deliveries SET state = $3, response_status = $4, error = $5, next_attempt_time = now() + $6
    WHERE id = $1 AND attempts = $2 AND state = 'PENDING'"""


class Deliveries:
    """What is on its way to users."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.added = asyncio.Event()
        """Set when there is something to send."""

    async def add(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Writes messages in the transaction of what they tell of; those that are there already stay as they are."""
        if not messages:
            return
        rows = [
            (new_id("dlv"), to.user_id, to.channel, to.webhook_id, to.event_id, to.event_type, to.payment_id, to.body)
            for to in messages
        ]
        await connection.executemany(_ADD, rows)
        self.wake_soon()

    def wake_soon(self) -> None:
        """Has the worker look for what the current transaction writes, once it is committed."""
        asyncio.get_running_loop().call_later(_COMMITTED_SECONDS, self.added.set)

    async def claim(self, limit: int, room: int, busy: Mapping[str, int], running: Collection[str]) -> list[Delivery]:
        """Claims what is due, at most `limit`, and for each target `room` or what `busy` says. Nothing of `running`.

        Nobody else gets the same for LEASE.
        """
        rows = await self._database.fetch(_CLAIM, room, list(busy), list(busy.values()), list(running), limit, LEASE)
        return [Delivery(**row) for row in rows]

    async def record(self, delivery: Delivery, outcome: Outcome) -> None:
        """Writes down what became of an attempt, unless the delivery was claimed anew meanwhile."""
        await self._database.execute(
            _RECORD, delivery.id, delivery.attempts, outcome.state, outcome.response_status, outcome.error, outcome.wait
        )

    def sweep(self) -> Sweep:
        """Returns the sweep of what was done with long ago."""
        return Sweep(self._database, "deliveries", "create_time", KEPT)
