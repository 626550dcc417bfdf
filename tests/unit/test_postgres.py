"""What becomes of a database that cannot be reached, whatever its driver says."""

from typing import Any

import pytest

from services.runtime.postgres import Database, DatabaseUnavailable


class ClosedUnderway:
    """A pool whose connection is closed while TLS is set up, which uvloop has no connection error for."""

    async def acquire(self, **_: float) -> Any:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    async def connect(self) -> Any:
        return await self.acquire()


async def test_a_connection_that_cannot_be_made_is_a_database_that_is_unavailable() -> None:
    pool = ClosedUnderway()
    database = Database(pool, pool.connect)  # type: ignore[arg-type]
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    with pytest.raises(DatabaseUnavailable):
        await database.session()
