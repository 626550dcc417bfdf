"""All SQL of streams."""

from collections import defaultdict
from collections.abc import Mapping

import asyncpg

from services.payment.domain import Change, State
from services.payment.ledger.domain import Money
from services.payment.streams.domain import Kind, Topic
from services.payment.streams.events import Event
from services.runtime.postgres import Database

_AFTER = """
    SELECT asked.id AS topic_id, position, payment_id, payer_id, payee_id, currency_code, amount, invoice_id,
        event.sequence, event.state, event.state_reason, event.refunded, event.create_time
    FROM unnest($1::text[], $2::bigint[]) AS asked (id, after)
    CROSS JOIN LATERAL ({news}) AS news
    JOIN payment_events AS event USING (payment_id, sequence)
    JOIN payments ON payments.id = payment_id
    ORDER BY topic_id, position"""
_NEWS = {
    Kind.PAYMENT: """
        SELECT sequence AS position, payment_id, sequence FROM payment_events
        WHERE payment_id = asked.id COLLATE "C" AND sequence > asked.after ORDER BY sequence LIMIT $3""",
    Kind.USER: """
        SELECT position, payment_id, sequence FROM user_events
        WHERE user_id = asked.id COLLATE "C" AND position > asked.after ORDER BY position LIMIT $3""",
}
_LIST_AFTER = {kind: _AFTER.format(news=news) for kind, news in _NEWS.items()}
_COUNT_OF_USER = "SELECT events FROM user_event_counts WHERE user_id = $1"


class Events:
    """The events of topics, as they were committed: whoever sees one position can see all before it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest_of_user(self, user_id: str) -> int:
        """Returns the position of a user's last event; 0 where there is none."""
        row = await self._database.fetchrow(_COUNT_OF_USER, user_id)
        return row["events"] if row else 0

    async def after(self, kind: Kind, positions: Mapping[str, int], limit: int) -> Mapping[Topic, list[Event]]:
        """Returns the events of topics after a position each, in their order, no more than `limit` of any topic."""
        rows = await self._database.fetch(_LIST_AFTER[kind], list(positions), list(positions.values()), limit)
        found: dict[Topic, list[Event]] = defaultdict(list)
        for row in rows:
            found[Topic(kind, row["topic_id"])].append(Event(row["position"], _change(row)))
        return found


def _change(row: asyncpg.Record) -> Change:
    return Change(
        payment_id=row["payment_id"],
        payer_id=row["payer_id"],
        payee_id=row["payee_id"],
        amount=Money(row["currency_code"], row["amount"]),
        invoice_id=row["invoice_id"] or "",
        sequence=row["sequence"],
        state=State[row["state"]],
        state_reason=row["state_reason"],
        refunded=Money(row["currency_code"], row["refunded"]),
        create_time=row["create_time"],
    )
