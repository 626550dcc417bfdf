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
