"""A service's own database: a pool, transactions, and what becomes of a lost connection."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import asyncpg

from services.runtime.errors import FieldViolation, InvalidRequest, Unavailable

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"  # generic in its stubs only
Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

POOL_SIZE = 10
STATEMENT_SECONDS = 10.0
ACQUIRE_SECONDS = 3.0

_LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # it lost its connection in the middle of something
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # it is shutting down or starting up
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,  # it is the primary no longer
    asyncpg.TransactionRollbackError,  # a deadlock with a migration, say
    asyncpg.InvalidCachedStatementError,  # a migration changed a table; once for each connection
)
_NULL_CHARACTER = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)  # in text, in JSON


class DatabaseUnavailable(Unavailable):
    """Postgres cannot be reached, was lost before it answered, or rolled back for no fault of the request.

    What was asked may or may not have happened.
    """

    message = "The service cannot reach its database right now."


class Database:
    """The pool. Connections carry no session state, so none is reset between uses."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", connect: Callable[[], Awaitable[Session]]) -> None:
        self._pool = pool
        self._connect = connect
        self._sessions: set[Session] = set()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lends a connection; each statement is a transaction.

        Raises DatabaseUnavailable, and InvalidRequest for text with a null character, which Postgres does not take.
        """
        try:
            connection = await self._acquire()
            try:
                yield connection
            finally:
                await self._pool.release(connection)
        except _NULL_CHARACTER as error:
            raise InvalidRequest(FieldViolation("", "it holds a null character")) from error
        except _LOST as error:
            raise DatabaseUnavailable from error

    async def _acquire(self) -> Connection:
        try:
            return await self._pool.acquire(timeout=ACQUIRE_SECONDS)
        except Exception as error:  # whatever asyncpg, uvloop or TLS make of a server that goes away meanwhile
            raise DatabaseUnavailable from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lends a connection in a transaction that is committed at the end. Raises DatabaseUnavailable."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def session(self) -> Session:
        """Opens a connection beside the pool, for what lasts as long as it does. Closed with the pool at the latest,
        and by Postgres when it is not used for half a minute.

        Raises DatabaseUnavailable.
        """
        try:
            session = await self._connect()
        except Exception as error:  # as above
            raise DatabaseUnavailable from error
        self._sessions.add(session)
        session.add_termination_listener(self._sessions.discard)
        return session

    def end_sessions(self) -> None:
        """Closes the connections beside the pool, without waiting."""
        for session in list(self._sessions):
            session.terminate()

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Returns the rows of one statement."""
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Returns the first row of one statement."""
        async with self.connection() as connection:
            return await connection.fetchrow(query, *args)

    async def execute(self, query: str, *args: Any) -> None:
        """Executes one statement."""
        async with self.connection() as connection:
            await connection.execute(query, *args)

    async def ping(self) -> None:
        """Raises DatabaseUnavailable when Postgres does not answer."""
        await self.fetchrow("SELECT 1")


async def _keep(_: Session) -> None:
    """Saves the round trip that asyncpg spends on resetting a connection."""


_NOTICED_WHEN_GONE = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}
"""Ends the session of a machine that is gone after 11 s, not after hours."""
_NOTICED_WHEN_FROZEN = {"idle_in_transaction_session_timeout": "15s"}
"""Ends the transaction of a process that does not go on with it: others wait for what it locked."""
_SESSION_NOTICED_WHEN_FROZEN = {"idle_session_timeout": "30s"}
"""Ends the session of a process that has not used it for longer than any call takes."""


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Opens the pool, without connecting yet, so that a service starts while Postgres is away."""
    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=POOL_SIZE,
        command_timeout=STATEMENT_SECONDS,
        timeout=ACQUIRE_SECONDS,
        reset=_keep,
        server_settings=_NOTICED_WHEN_GONE | _NOTICED_WHEN_FROZEN,
    )
    connect = partial(
        asyncpg.connect, url, timeout=ACQUIRE_SECONDS, server_settings=_NOTICED_WHEN_GONE | _SESSION_NOTICED_WHEN_FROZEN
    )
    async with pool:
        database = Database(pool, connect)
        try:
            yield database
        finally:
            database.end_sessions()
