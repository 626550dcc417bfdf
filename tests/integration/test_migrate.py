"""Migrations, as a rollout and a rollback run them."""

import threading

import psycopg
import pytest
import sqlalchemy

from services.runtime import migrate
from tests.integration.conftest import FreshDatabase
from tests.waiting import wait_until


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


def test_a_migration_waits_for_a_table_that_is_in_use_and_holds_up_nobody_meanwhile(
    fresh_database: FreshDatabase, capfd: pytest.CaptureFixture[str]
) -> None:
    url = fresh_database("payment")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        with connection.transaction():
            # As another replica's CREATE TABLE that is not committed yet: it holds the name.
            connection.execute("CREATE TABLE accounts (id text)")
            migrating = threading.Thread(target=migrate.upgrade_patiently, args=("payment", url))
            migrating.start()
            wait_until(lambda: "lock timeout" in capfd.readouterr().err, "it does not say what it waits for")
            connection.execute("DROP TABLE accounts")
        migrating.join(timeout=30)
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchall() == [(1,)]


def test_a_migration_gives_up_a_postgres_that_stays_away() -> None:
    with pytest.raises(sqlalchemy.exc.OperationalError, match="refused"):
        migrate.upgrade_patiently("payment", "postgresql://payment@127.0.0.1:1/payment", patience=0)
