"""Migrations, as a rollout and a rollback run them."""

import psycopg

from services.runtime import migrate
from tests.integration.conftest import FreshDatabase


def test_an_older_version_starts_on_a_schema_that_is_newer(fresh_database: FreshDatabase) -> None:
    url = fresh_database("payment")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        migrate.upgrade("payment", url)
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


def test_what_is_migrated_is_migrated_again_without_effect(fresh_database: FreshDatabase) -> None:
    url = fresh_database("payment")
    migrate.upgrade("payment", url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchall() == [(1,)]
