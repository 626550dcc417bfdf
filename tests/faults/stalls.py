"""Points in time to kill at: ways to stop a process in the middle of something, seen and done through its database."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.pq import TransactionStatus

from scripts.stack.settings import Settings
from tests.edge.stack import Stack
from tests.faults.book import connect
from tests.waiting import wait_until

_BLOCKED = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND %s = ANY(pg_blocking_pids(pid))"
_COMMITTING = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND wait_event = 'SyncRep'"


class Hold:
    """Locks that a test holds in a service's database."""

    def __init__(self, settings: Settings, service: str, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self._settings = settings
        self._service = service
        self._connection = connection

    def blocks(self) -> bool:
        """Tells whether the service waits for one of them."""
        return bool(self._waiting())

    def wait(self) -> None:
        """Waits until the service waits."""
        wait_until(self.blocks, f"{self._service} does not wait for the lock")

    def wait_until_given_up(self) -> None:
        """Waits until nobody waits any more: neither the service nor what is left of it in the database."""
        wait_until(lambda: not self.blocks(), f"something of {self._service} still waits for the lock")

    def _waiting(self) -> list[tuple[Any, ...]]:
        with connect(self._settings, "postgres") as connection:
            pid = self._connection.info.backend_pid
            return connection.execute(_BLOCKED, (self._service, pid)).fetchall()


@contextmanager
def holding(stack: Stack, service: str, query: LiteralString, *arguments: object) -> Iterator[Hold]:
    """Takes locks in a service's database for a while, with a statement."""
    with closing(connect(stack.settings, service)) as connection:  # which may be dead by then
        connection.execute("BEGIN")
        connection.execute(query, arguments)
        yield Hold(stack.settings, service, connection)


@contextmanager
def commits_held(stack: Stack) -> Iterator[None]:
    """Has every commit wait for a while when it is durable already: for a standby that will never come.

    Until then nobody sees what is committed, and nobody is told that it is.
    """
    try:
        _set_standby(stack.settings, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        with closing(connect(stack.settings, "postgres")) as probe:
            wait_until(lambda: _commit_waits(stack.settings, probe), "commits do not wait")
            yield
    finally:
        _set_standby(stack.settings, "ALTER SYSTEM RESET synchronous_standby_names")


def wait_until_committing(stack: Stack, service: str) -> None:
    """Waits until a commit of the service's is held."""

    def is_committing() -> bool:
        with connect(stack.settings, "postgres") as connection:
            return bool(connection.execute(_COMMITTING, [service]).fetchall())

    wait_until(is_committing, f"{service} does not commit")


def freeze(stack: Stack, name: str) -> None:
    """Stops a process in its tracks."""
    os.kill(stack.pid(name), signal.SIGSTOP)


def thaw(stack: Stack, name: str) -> None:
    """Lets a process go on."""
    os.kill(stack.pid(name), signal.SIGCONT)


def _set_standby(settings: Settings, statement: LiteralString) -> None:
    def is_done() -> bool:
        try:
            with connect(settings, "postgres") as connection:
                connection.execute("SET synchronous_commit = local")
                connection.execute(statement)
                connection.execute("SELECT pg_reload_conf()")
        except psycopg.OperationalError:  # it is starting
            return False
        return True

    wait_until(is_done, "Postgres cannot be configured")


def _commit_waits(settings: Settings, probe: "psycopg.Connection[tuple[Any, ...]]") -> bool:
    """Tells whether a commit waits already; where it does not, tries another."""
    probe.pgconn.consume_input()
    if probe.pgconn.transaction_status != TransactionStatus.ACTIVE or not probe.pgconn.is_busy():
        while probe.pgconn.get_result():
            pass
        probe.pgconn.send_query(b"CREATE TABLE probe (); DROP TABLE probe")
    with connect(settings, "postgres") as connection:
        query = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        return bool(connection.execute(query, [probe.info.backend_pid]).fetchall())
