"""What was in a database before a migration is there after it, as the new release wants it."""

import secrets
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations

from scripts.stack import postgres
from scripts.stack.folder import RunFolder
from tests.integration.conftest import FreshDatabase

Old = Callable[[str], str]


@pytest.fixture
def old(folder: RunFolder, fresh_database: FreshDatabase) -> Old:
    """Returns the URL of an empty database of a service."""
    return lambda service: (
        fresh_database(service) and postgres.create_database(folder, f"old_{secrets.token_hex(4)}", owner=service)
    )


def _migrate(service: str, url: str, first: int, last: int) -> None:
    """Applies these migrations, in one transaction as services.runtime.migrate does."""
    folder = Path("services", service, "migrations")
    names = [path.stem for path in sorted(folder.glob("0*.py"))]
    engine = sqlalchemy.create_engine(
        url.replace("postgresql:", "postgresql+psycopg:", 1), poolclass=sqlalchemy.NullPool
    )
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        for name in names[first - 1 : last]:
            import_module(f"services.{service}.migrations.{name}").upgrade()


def _payment(connection: psycopg.Connection, number: str, payer: str, payee: str) -> None:
    connection.execute(
        """INSERT INTO payments (id, payer_id, payee_id, payer_account_id, payee_account_id, currency_code, amount,
            description, state, state_reason, risk_score, sequence, create_time, update_time)
        VALUES (%s, %s, %s, %s, %s, 'EUR', 100, '', 'AUTHORIZED', '', 0, 1, now(), clock_timestamp())""",
        [number, payer, payee, f"acc_{payer}", f"acc_{payee}"],
    )


def _positions(connection: psycopg.Connection, user: str) -> list[tuple[int, str, int]]:
    query = "SELECT position, payment_id, sequence FROM user_events WHERE user_id = %s ORDER BY position"
    return list(connection.execute(query, [user]).fetchall())


def test_payments_from_before_are_in_their_parties_streams_and_later_ones_follow(old: Old) -> None:
    url = old("payment")
    _migrate("payment", url, 1, 3)
    with psycopg.connect(url, autocommit=True) as connection:
        for user in ("ada", "bob", "eve"):
            connection.execute("INSERT INTO accounts VALUES (%s, %s, 'EUR', false, 0, 0, now())", [f"acc_{user}", user])
        _payment(connection, "pay_1", "ada", "bob")
        _payment(connection, "pay_2", "eve", "bob")
        connection.execute("UPDATE payments SET state = 'CANCELLED', sequence = 2, update_time = clock_timestamp()")

        _migrate("payment", url, 4, 4)
        _payment(connection, "pay_3", "bob", "ada")

        assert _positions(connection, "ada") == [(1, "pay_1", 1), (2, "pay_1", 2), (3, "pay_3", 1)]
        assert [place for place, _, _ in _positions(connection, "bob")] == [1, 2, 3, 4, 5]
        assert {row[1:] for row in _positions(connection, "bob")[:4]} == {
            ("pay_1", 1),
            ("pay_1", 2),
            ("pay_2", 1),
            ("pay_2", 2),
        }


def _document(connection: psycopg.Connection, number: str, kind: str) -> None:
    connection.execute(
        """INSERT INTO documents (id, owner_id, kind, file_name, content_type, size_bytes, sha256, state, checks,
            create_time)
        VALUES (%s, 'ada', %s, 'a.png', 'image/png', 1, repeat('0', 64), 'VERIFIED', '[]', now())""",
        [number, kind],
    )


def _states(connection: psycopg.Connection) -> dict[str, tuple[str, bool]]:
    rows = connection.execute("SELECT id, state, verify_time IS NOT NULL FROM documents").fetchall()
    return {number: (state, due) for number, state, due in rows}


def test_documents_that_were_accepted_unread_are_read_also_those_of_the_release_before(old: Old) -> None:
    url = old("document")
    _migrate("document", url, 1, 1)
    with psycopg.connect(url, autocommit=True) as connection:
        _document(connection, "doc_passport", "PASSPORT")
        _document(connection, "doc_bill", "PROOF_OF_ADDRESS")

        _migrate("document", url, 2, 2)
        assert _states(connection) == {"doc_passport": ("PENDING", True), "doc_bill": ("VERIFIED", False)}

        _document(connection, "doc_of_old_replica", "PASSPORT")
        assert _states(connection)["doc_of_old_replica"] == ("PENDING", True)
        connection.execute("UPDATE documents SET state = 'VERIFIED', checks = '[]' WHERE id = 'doc_of_old_replica'")
        assert _states(connection)["doc_of_old_replica"] == ("PENDING", True)
