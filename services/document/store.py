"""All SQL of documents."""

import json
from collections.abc import Callable, Iterator, Sequence

import asyncpg

from services.document.domain import (
    IDENTITY_KINDS,
    Check,
    Document,
    DocumentNotFound,
    File,
    Kind,
    Outcome,
    State,
    TooManyDocuments,
)
from services.runtime import audit, idempotency
from services.runtime.idempotency import Answer
from services.runtime.paging import Page
from services.runtime.postgres import Database

LOCK_CONTENT = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
"""Of several users who upload the same file, one is the first."""
_ADD = """
    INSERT INTO documents (id, owner_id, kind, file_name, content_type, size_bytes, sha256, state, checks, create_time,
        verify_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'PENDING', DEFAULT, clock_timestamp(), now())
    RETURNING *"""
_LOCK_OWNER = "SELECT pg_advisory_xact_lock(hashtextextended('documents of ' || $1, 0))"
_COUNT = "SELECT count(*) FROM documents WHERE owner_id = $1"
_GET = "SELECT * FROM documents WHERE id = $1"
_LIST = "SELECT * FROM documents WHERE owner_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2"
_REMOVE = "DELETE FROM documents WHERE id = $1"
_FIND = """
    SELECT id FROM documents
    WHERE owner_id = $1 AND state = $2 AND kind = ANY($3::text[]) AND expire_date >= (now() AT TIME ZONE 'UTC')::date
    ORDER BY id DESC LIMIT 1"""
_WITHOUT_ROW = """
    SELECT id FROM unnest($1::text[]) AS object (id) WHERE NOT EXISTS (SELECT FROM documents WHERE id = object.id)"""


class Documents:
    """Documents, and how their checks came out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def require_room(self, owner_id: str, most: int) -> None:
        """Raises TooManyDocuments where a user keeps as many as anybody may."""
        row = await self._database.fetchrow(_COUNT, owner_id)
        if row is not None and row["count"] >= most:
            raise TooManyDocuments(limit=most)

    async def add(
        self,
        document_id: str,
        owner_id: str,
        kind: Kind,
        file: File,
        most: int,
        answer: Callable[[Document], Answer],
    ) -> Answer:
        """Keeps a new document, to be read, of at most so many of its owner. Raises TooManyDocuments.

        Returns `answer` of it, recorded with the request's idempotency key, where it has one.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_OWNER, owner_id)
            await connection.execute(LOCK_CONTENT, file.sha256)
            [row] = await connection.fetch(
                _ADD,
                document_id,
                owner_id,
                kind.name,
                file.name,
                file.content_type,
                file.size_bytes,
                file.sha256,
            )
            await audit.record(connection, f"documents/{document_id}")
            answered = answer(from_row(row))
            await idempotency.record(connection, answered)
            if await connection.fetchval(_COUNT, owner_id) > most:
                raise TooManyDocuments(limit=most)
        return answered

    async def settled(self, document_id: str, owner_id: str) -> Document | None:
        """Returns a document whose `add` failed if it was committed all the same; afterwards, that is certain."""
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_OWNER, owner_id)  # waits for the transaction that nobody has heard of since
            row = await connection.fetchrow(_GET, document_id)
        return from_row(row) if row else None

    async def get(self, document_id: str) -> Document:
        """Returns a document. Raises DocumentNotFound."""
        row = await self._database.fetchrow(_GET, document_id)
        if row is None:
            raise DocumentNotFound(document_id=document_id)
        return from_row(row)

    async def list_of(self, owner_id: str, page: Page) -> list[Document]:
        """Returns a user's documents."""
        rows = await self._database.fetch(_LIST, page.before, page.rows, owner_id)
        return [from_row(row) for row in rows]

    async def find_identity(self, owner_id: str) -> str:
        """Returns the id of the newest valid document that proves a user's identity; empty: there is none."""
        kinds = [kind.name for kind in IDENTITY_KINDS]
        row = await self._database.fetchrow(_FIND, owner_id, State.VERIFIED.name, kinds)
        return row["id"] if row else ""

    async def remove(self, document_id: str) -> None:
        """Removes a document, if it is there."""
        async with self._database.transaction() as connection:
            if await connection.execute(_REMOVE, document_id) == "DELETE 1":
                await audit.record(connection, f"documents/{document_id}")

    async def unknown(self, document_ids: Sequence[str]) -> list[str]:
        """Returns those of the ids that belong to no document."""
        return [row["id"] for row in await self._database.fetch(_WITHOUT_ROW, document_ids)]


def from_row(row: asyncpg.Record) -> Document:
    """Reads a document."""
    state = State[row["state"]]
    return Document(
        id=row["id"],
        owner_id=row["owner_id"],
        kind=Kind[row["kind"]],
        file=File(row["file_name"], row["content_type"], row["size_bytes"], row["sha256"]),
        create_time=row["create_time"],
        state=state,
        sequence=row["sequence"],
        checks=() if state is State.PENDING else tuple(_checks(json.loads(row["checks"]), row["unreadable"])),
        expire_date=row["expire_date"],
    )


def _checks(found: list[tuple[str, str]], unreadable: Sequence[str]) -> Iterator[Check]:
    for name, detail in found:
        wrong = Outcome.UNREADABLE if name in unreadable else Outcome.FAILED
        yield Check(name, wrong if detail else Outcome.PASSED, detail)
