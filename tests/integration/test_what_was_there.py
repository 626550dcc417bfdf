"""What was in a database before a migration is there after it, as the new release wants it."""

import json
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


def _document(connection: psycopg.Connection, number: str, kind: str, owner: str = "ada", wrong: str = "") -> None:
    """A document as the version before writes it, with the name of a check that failed."""
    checks = json.dumps([["READABLE", ""], [wrong or "USEFUL_SIZE", wrong and "It is wrong."], ["LAST", wrong]])
    connection.execute(
        """INSERT INTO documents (id, owner_id, kind, file_name, content_type, size_bytes, sha256, state, checks,
            create_time)
        VALUES (%s, %s, %s, 'a.png', 'image/png', 1, repeat('0', 64), %s, %s, now())""",
        [number, owner, kind, "REJECTED" if wrong else "VERIFIED", checks],
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


def test_documents_from_before_are_read_one_a_second_and_everybodys_newest_first(old: Old) -> None:
    url = old("document")
    _migrate("document", url, 1, 1)
    with psycopg.connect(url, autocommit=True) as connection:
        for number, owner in enumerate(["ada", "ada", "ada", "bob", "eve", "eve"]):
            _document(connection, f"doc_{number}", "ID_CARD", owner)
        _migrate("document", url, 2, 2)
        rows = connection.execute("""
            SELECT id, extract(epoch FROM verify_time - min(verify_time) OVER ())::int, verify_time = due_time
            FROM documents ORDER BY verify_time""").fetchall()
    assert rows == [(f"doc_{number}", seconds, True) for seconds, number in enumerate([5, 3, 2, 4, 1, 0])]


def test_what_was_there_has_the_verdict_that_its_owner_knows_and_is_not_shown_as_accepted(old: Old) -> None:
    url = old("document")
    _migrate("document", url, 1, 1)
    with psycopg.connect(url, autocommit=True) as connection:
        _document(connection, "doc_good", "PASSPORT")
        _document(connection, "doc_bad", "PASSPORT", wrong="USEFUL_SIZE")
        _document(connection, "doc_bill", "PROOF_OF_ADDRESS")
        _migrate("document", url, 2, 2)
        _document(connection, "doc_of_old_replica", "PASSPORT")
        rows = connection.execute("SELECT id, verdict, checks FROM documents").fetchall()
    assert {number: verdict for number, verdict, _ in rows} == {
        "doc_good": "VERIFIED",
        "doc_bad": "USEFUL_SIZE",
        "doc_bill": "VERIFIED",
        "doc_of_old_replica": "",
    }
    shown_as_accepted = {number for number, _, checks in rows if not any(detail for _, detail in checks)}
    assert shown_as_accepted == {"doc_bill"}
