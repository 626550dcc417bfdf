"""The SQL that docs/operations.md gives to operators, over the schemas it is for."""

import re

import psycopg
import pytest

from scripts.stack.folder import REPOSITORY
from tests.integration.conftest import FreshDatabase

_PAGE = REPOSITORY / "docs" / "operations.md"
[_BLOCK] = re.findall(r"```sql\n(.*?)```", _PAGE.read_text(), re.DOTALL)
_STATEMENTS = re.findall(r"-- (\d), (.*?):.*?\n(.*?;)", _BLOCK, re.DOTALL)


@pytest.mark.parametrize(("number", "where", "statement"), _STATEMENTS)
def test_what_operators_watch_is_quiet_in_a_new_database(
    fresh_database: FreshDatabase, number: str, where: str, statement: str
) -> None:
    databases = re.findall(r"\buser\b|\bpayment\b|\bdocument\b|\bnotification\b", where) or ["payment"]  # anywhere
    for database in databases:
        with psycopg.connect(fresh_database(database)) as connection:
            rows = connection.execute(statement).fetchall()
        assert all(value < 60 for row in rows for value in row)
        assert not rows or number != "3"


def test_the_page_has_every_statement_that_its_alerts_name() -> None:
    assert set(re.findall(r"SQL (\d)", _PAGE.read_text())) == {number for number, _, _ in _STATEMENTS}


_DOCUMENT = """
    INSERT INTO documents (id, owner_id, kind, file_name, content_type, size_bytes, sha256, state, create_time,
        verify_time, due_time)
    VALUES (%s, 'ada', 'PASSPORT', 'a.png', 'image/png', 1, repeat('0', 64), 'PENDING', now() - interval '1 year',
        now() + interval '2 seconds', now() - %s::interval)"""


def test_documents_that_nobody_reads_are_noticed_whether_they_are_new_or_read_anew(
    fresh_database: FreshDatabase,
) -> None:
    [statement] = [sql for number, _, sql in _STATEMENTS if number == "6"]
    with psycopg.connect(fresh_database("document"), autocommit=True) as connection:
        connection.execute(_DOCUMENT, ["doc_read_anew", "4 minutes"])
        assert connection.execute(statement).fetchall() == [(0,)]
        connection.execute(_DOCUMENT, ["doc_waits", "6 minutes"])  # and is tried every other second
        assert connection.execute(statement).fetchall() == [(1,)]
