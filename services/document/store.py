"""All SQL of documents."""

import json
from collections.abc import Sequence
from dataclasses import replace

import asyncpg

from services.document.domain import (
    IDENTITY_KINDS,
    Check,
    Document,
    DocumentNotFound,
    Facts,
    File,
    Inspection,
    Kind,
    State,
    check,
)
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database

_ADD = """
    INSERT INTO documents (id, owner_id, kind, file_name, content_type, size_bytes, sha256, state, checks, create_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""
_UPDATE = "UPDATE documents SET state = $2, checks = $3 WHERE id = $1"
_GET = "SELECT * FROM documents WHERE id = $1"
_LIST = "SELECT * FROM documents WHERE owner_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2"
_REMOVE = "DELETE FROM documents WHERE id = $1"
_FIND = """
    SELECT id FROM documents WHERE owner_id = $1 AND state = $2 AND kind = ANY($3::text[]) ORDER BY id DESC LIMIT 1"""
_LOCK_CONTENT = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_NOW = "SELECT clock_timestamp()"
_FIRST_OWNER = "SELECT owner_id FROM documents WHERE sha256 = $1 ORDER BY create_time LIMIT 1"
_WITHOUT_ROW = """
    SELECT id FROM unnest($1::text[]) AS object (id) WHERE NOT EXISTS (SELECT FROM documents WHERE id = object.id)"""


class Documents:
    """Documents, and how their checks came out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, document_id: str, owner_id: str, kind: Kind, file: File, inspection: Inspection) -> Document:
        """Checks and keeps a new document."""
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_CONTENT, file.sha256)
            now = await connection.fetchval(_NOW)  # of the one clock that all replicas share
            document = Document(document_id, owner_id, kind, file, (), now)
            document = await _checked(connection, document, inspection)
            await connection.execute(
                _ADD,
                document.id,
                document.owner_id,
                document.kind.name,
                file.name,
                file.content_type,
                file.size_bytes,
                file.sha256,
                document.state.name,
                _checks_to_json(document),
                document.create_time,
            )
        return document

    async def check_again(self, document: Document, inspection: Inspection) -> Document:
        """Checks a document again. Raises DocumentNotFound."""
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_CONTENT, document.file.sha256)
            document = await _checked(connection, document, inspection)
            done = await connection.execute(_UPDATE, document.id, document.state.name, _checks_to_json(document))
        if done == "UPDATE 0":
            raise DocumentNotFound(document_id=document.id)
        return document

    async def get(self, document_id: str) -> Document:
        """Returns a document. Raises DocumentNotFound."""
        row = await self._database.fetchrow(_GET, document_id)
        if row is None:
            raise DocumentNotFound(document_id=document_id)
        return _document(row)

    async def list_of(self, owner_id: str, page: Page) -> list[Document]:
        """Returns a user's documents."""
        rows = await self._database.fetch(_LIST, page.before, page.rows, owner_id)
        return [_document(row) for row in rows]

    async def find_identity(self, owner_id: str) -> str:
        """Returns the id of the newest verified document that proves a user's identity; empty: there is none."""
        kinds = [kind.name for kind in IDENTITY_KINDS]
        row = await self._database.fetchrow(_FIND, owner_id, State.VERIFIED.name, kinds)
        return row["id"] if row else ""

    async def remove(self, document_id: str) -> None:
        """Removes a document, if it is there."""
        await self._database.execute(_REMOVE, document_id)

    async def unknown(self, document_ids: Sequence[str]) -> list[str]:
        """Returns those of the ids that belong to no document."""
        return [row["id"] for row in await self._database.fetch(_WITHOUT_ROW, document_ids)]


async def _checked(connection: Connection, document: Document, inspection: Inspection) -> Document:
    """Runs the checks, with the content locked: of several users who upload the same file, one is the first.

    The file is the first one's, and stays so: a copy does not devalue the original.
    """
    first_owner_id = await connection.fetchval(_FIRST_OWNER, document.file.sha256)
    of_another_user = first_owner_id not in (None, document.owner_id)
    return replace(document, checks=check(Facts(document.file.content_type, inspection, of_another_user)))


def _checks_to_json(document: Document) -> str:
    return json.dumps([[one.name, one.detail] for one in document.checks])


def _document(row: asyncpg.Record) -> Document:
    return Document(
        id=row["id"],
        owner_id=row["owner_id"],
        kind=Kind[row["kind"]],
        file=File(row["file_name"], row["content_type"], row["size_bytes"], row["sha256"]),
        checks=tuple(Check(name, detail) for name, detail in json.loads(row["checks"])),
        create_time=row["create_time"],
    )
