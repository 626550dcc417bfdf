"""All SQL of verification."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import asyncpg

from services.document.domain import IDENTITY_KINDS, Document, Outcome
from services.document.events import to_proto
from services.document.store import LOCK_CONTENT, from_row
from services.document.verification.domain import Facts, judge
from services.runtime.outbox import Outbox
from services.runtime.postgres import Connection, Database

LEASE = timedelta(seconds=15)
"""After how long a document is read by another whose worker is gone, and renews its lease no longer."""

_CLAIM = """
    UPDATE documents SET verify_time = now() + $1, verify_failures = verify_failures + 1
    WHERE id = (
        SELECT id FROM documents WHERE verify_time <= now() ORDER BY verify_time LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING *"""
# What a worker that was too slow has to say changes nothing: another one has claimed the document, or it is to be
# read anew.
_POSTPONE = """
    UPDATE documents SET verify_time = now() + $4, verify_failures = $3 - $5
    WHERE id = $1 AND sequence = $2 AND verify_failures = $3 AND verify_time IS NOT NULL"""
_FIRST_OWNER = "SELECT owner_id FROM documents WHERE sha256 = $1 ORDER BY create_time LIMIT 1"
_DECIDE = """
    UPDATE documents SET state = $3, checks = $4, unreadable = $5, expire_date = $6, sequence = sequence + 1,
        verify_time = NULL, verify_failures = 0
    WHERE id = $1 AND sequence = $2 AND verify_time IS NOT NULL
    RETURNING *"""
# A user's are read one a second, as in _ADD: the newest first, for payments need one.
_BEGIN_AGAIN = """
    UPDATE documents SET state = 'PENDING', checks = '[]', unreadable = '{}', expire_date = NULL,
        sequence = sequence + 1, verify_time = now() + interval '1 second' * turns.number, verify_failures = 0
    FROM ("""
_ONE = """
        SELECT id, (SELECT count(*) FROM documents WHERE owner_id = one.owner_id AND verify_time IS NOT NULL) AS number
        FROM documents AS one WHERE id = $1) AS turns
    WHERE documents.id = turns.id AND state <> 'PENDING'
    RETURNING documents.*"""
_ALL = """
        SELECT id, row_number() OVER (ORDER BY id DESC) - 1 AS number
        FROM documents WHERE owner_id = $1 AND kind = ANY($2::text[])) AS turns
    WHERE documents.id = turns.id
    RETURNING documents.*"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A document that is to be read now."""

    document: Document
    attempts: int
    """How often it was claimed in this state, this time included, but for those that were not its fault."""


class Verifications:
    """The documents that are to be read, and what becomes of them."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self.due = asyncio.Event()
        """Set when there is something to read."""

    async def claim(self) -> Claim | None:
        """Claims the document that has been due for the longest. Nobody else gets it for LEASE."""
        row = await self._database.fetchrow(_CLAIM, LEASE)
        return Claim(from_row(row), row["verify_failures"]) if row else None

    async def renew(self, claim: Claim) -> None:
        """Has nobody else get a document for another LEASE."""
        await self.postpone(claim, LEASE, its_fault=True)

    async def postpone(self, claim: Claim, wait: timedelta, *, its_fault: bool) -> None:
        """Has a document read later. Unless it is its fault, the attempt does not count."""
        await self._database.execute(
            _POSTPONE, claim.document.id, claim.document.sequence, claim.attempts, wait, 0 if its_fault else 1
        )

    async def decide(self, claim: Claim, facts: Facts) -> None:
        """Writes what became of a document, and its event. Nothing, if it is to be read anew meanwhile, or is gone.

        The content is locked: a file is the user's who uploaded it first, and stays so: a copy does not devalue it.
        """
        document = claim.document
        async with self._outbox.transaction() as connection:
            await connection.execute(LOCK_CONTENT, document.file.sha256)
            first_owner_id = await connection.fetchval(_FIRST_OWNER, document.file.sha256)
            verdict = judge(replace(facts, of_another_user=first_owner_id not in (None, document.owner_id)))
            row = await connection.fetchrow(
                _DECIDE,
                document.id,
                document.sequence,
                verdict.state.name,
                json.dumps([[one.name, one.detail] for one in verdict.checks]),
                [one.name for one in verdict.checks if one.outcome is Outcome.UNREADABLE],
                verdict.expire_date,
            )
            if row:
                await self._tell(connection, [row])

    async def begin_again(self, document_id: str) -> None:
        """Has a document read anew, if there is one and it is not PENDING."""
        async with self._outbox.transaction() as connection:
            await self._tell(connection, await connection.fetch(_BEGIN_AGAIN + _ONE, document_id))
        self.due.set()

    async def begin_again_of(self, connection: Connection, owner_id: str) -> None:
        """Has what proves a user's identity read anew, PENDING or not: it may be being compared with what was."""
        kinds = [kind.name for kind in IDENTITY_KINDS]
        await self._tell(connection, await connection.fetch(_BEGIN_AGAIN + _ALL, owner_id, kinds))

    async def _tell(self, connection: Connection, rows: Sequence[asyncpg.Record]) -> None:
        now = datetime.now(UTC)
        for document in map(from_row, rows):
            await self._outbox.add(connection, document.id, document.sequence, to_proto(document, now))
