"""All SQL of verification."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import asyncpg

from services.document.domain import IDENTITY_KINDS, Document, Outcome
from services.document.events import to_proto
from services.document.store import LOCK_CONTENT, from_row
from services.document.verification.domain import CHANGE_WITH_PROFILE, Facts, Identity, judge
from services.runtime import audit
from services.runtime.outbox import Outbox
from services.runtime.postgres import Connection, Database

LEASE = timedelta(seconds=15)
"""After how long a document is read by another whose worker is gone, and renews its lease no longer."""

_LOCK_CLAIMS = "SELECT pg_advisory_xact_lock(hashtextextended('claims of documents', 0))"
# One of each owner at a time. What failed and waits is like what is under lease in its last seconds: that does no harm.
# Not now(), which is from before it had the lock: what others have claimed since would seem to wait longer than LEASE.
_CLAIM = """
    UPDATE documents SET verify_time = statement_timestamp() + $1, verify_failures = verify_failures + 1
    WHERE id = (
        SELECT id FROM documents
        WHERE verify_time <= statement_timestamp() AND owner_id NOT IN (
            SELECT owner_id FROM documents
            WHERE verify_failures > 0 AND verify_time > statement_timestamp()
                AND verify_time <= statement_timestamp() + $1)
        ORDER BY verify_time, id DESC LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING *"""
# What a worker that was too slow has to say changes nothing: another one has claimed the document, or it is to be
# read anew.
_POSTPONE = """
    UPDATE documents SET verify_time = now() + $4, verify_failures = $3 - $5
    WHERE id = $1 AND sequence = $2 AND verify_failures = $3 AND verify_time IS NOT NULL"""
_FIRST_OWNER = "SELECT owner_id FROM documents WHERE sha256 = $1 ORDER BY create_time LIMIT 1"
_DECIDE = """
    UPDATE documents SET state = $3, checks = $4, unreadable = $5, expire_date = $6, verdict = $7, judged_by = $8,
        sequence = sequence + 1, verify_time = NULL, verify_failures = 0
    WHERE id = $1 AND sequence = $2 AND verify_time IS NOT NULL
    RETURNING *"""
# Who was served lets those go first who came meanwhile. It skips what is locked, so there is no deadlock.
_GIVE_WAY = """
    UPDATE documents SET verify_time = now() + $2, due_time = now() + $2
    WHERE id IN (
        SELECT id FROM documents WHERE owner_id = $1 AND verify_failures = 0 AND verify_time < now() + $2
        FOR UPDATE SKIP LOCKED)"""
# What is PENDING keeps its turn: else, who changes a profile to and fro has the same document read many times at once.
_BEGIN_AGAIN = """
    UPDATE documents SET state = 'PENDING', checks = DEFAULT, unreadable = '{}', expire_date = NULL,
        judged_by = '', sequence = sequence + 1, verify_time = coalesce(verify_time, now()),
        due_time = CASE WHEN verify_time IS NULL THEN now() ELSE due_time END
    WHERE """
_ONE = """id = $1 AND state <> 'PENDING' RETURNING *"""
_JUDGED_BY_ANOTHER = """
    owner_id = $1 AND kind = ANY($2::text[]) AND judged_by <> $3
        AND (state = 'PENDING' OR verdict = ANY($4::text[]))
    RETURNING *"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A document that is to be read now."""

    document: Document
    attempts: int
    """How often it was claimed in this state, this time included, but for those that were not its fault."""
    verdict: str
    """The last one, in short; empty: there was none."""
    begin: float
    """When it was claimed, by this process's monotonic clock."""


class Verifications:
    """The documents that are to be read, and what becomes of them."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self.due = asyncio.Event()
        """Set when there is something to read."""

    async def claim(self) -> Claim | None:
        """Claims the document that has been due for the longest, of an owner of whom none is being read.

        Nobody else gets it for LEASE.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_CLAIMS)  # or two replicas would claim two of the same owner
            row = await connection.fetchrow(_CLAIM, LEASE)
        return Claim(from_row(row), row["verify_failures"], row["verdict"], time.monotonic()) if row else None

    async def renew(self, claim: Claim) -> None:
        """Has nobody else get a document for another LEASE."""
        async with self._database.connection() as connection:
            await _postpone(connection, claim, LEASE, its_fault=True)

    async def postpone(self, claim: Claim, wait: timedelta, *, its_fault: bool) -> None:
        """Has a document read later. Unless it is its fault, the attempt does not count."""
        async with self._database.transaction() as connection:
            await _postpone(connection, claim, wait, its_fault=its_fault)
            if its_fault:
                await _give_way(connection, claim)

    async def decide(self, claim: Claim, facts: Facts) -> None:
        """Writes what became of a document, and its event. Nothing, if it is to be read anew meanwhile, or is gone.

        Its owner's others then wait for as long as it took.

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
                verdict.gist,
                facts.identity.digest,
            )
            if row:
                await self._tell(connection, [row], unchanged=verdict.gist == claim.verdict)
            await _give_way(connection, claim)

    async def begin_again(self, document_id: str) -> None:
        """Has a document read anew, if there is one and it is not PENDING."""
        async with self._outbox.transaction() as connection:
            begun = await connection.fetch(_BEGIN_AGAIN + _ONE, document_id)
            await self._tell(connection, begun, unchanged=False)
            if begun:
                await audit.record(connection, f"documents/{document_id}")
        self.due.set()

    async def begin_again_of(self, connection: Connection, owner_id: str, identity: Identity) -> None:
        """Has what proves a user's identity read anew where it was compared with another.

        What is PENDING, too: it may be being compared with what was. But nothing that is rejected whoever they are.
        """
        kinds = [kind.name for kind in IDENTITY_KINDS]
        query = _BEGIN_AGAIN + _JUDGED_BY_ANOTHER
        rows = await connection.fetch(query, owner_id, kinds, identity.digest, CHANGE_WITH_PROFILE)
        await self._tell(connection, rows, unchanged=False)

    async def _tell(self, connection: Connection, rows: Sequence[asyncpg.Record], *, unchanged: bool) -> None:
        now = datetime.now(UTC)
        for document in map(from_row, rows):
            event = to_proto(document, now, unchanged=unchanged)
            await self._outbox.add(connection, document.id, document.sequence, event)


async def _postpone(connection: Connection, claim: Claim, wait: timedelta, *, its_fault: bool) -> None:
    document = claim.document
    await connection.execute(_POSTPONE, document.id, document.sequence, claim.attempts, wait, 0 if its_fault else 1)


async def _give_way(connection: Connection, claim: Claim) -> None:
    taken = timedelta(seconds=time.monotonic() - claim.begin)
    await connection.execute(_GIVE_WAY, claim.document.owner_id, taken)
