"""Which idempotency keys are in use, here or on other replicas: an advisory lock for each, all held by one session.

The locks are a courtesy that saves work and says "in use"; what is done once is done once because of the primary key
of idempotency_keys. So where the session is lost, its locks are too, and requests go on without. What is asked for
and given back while a statement is under way goes with the next one, so that one connection serves any load.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field

import asyncpg
import structlog

from services.runtime.log import brief
from services.runtime.postgres import Database, Session

STATEMENT_SECONDS = 1.0
"""What takes longer is done without."""
PAUSE_SECONDS = 1.0
"""How long it is done without after a failure, before Postgres is asked again."""

# A key that was answered needs no lock.
_TAKE = """
    SELECT request_sha256, response, CASE WHEN response IS NULL THEN pg_try_advisory_lock(number) END AS taken
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
        WITH ORDINALITY AS wanted (caller_id, rpc, key, number, place)
    LEFT JOIN LATERAL (
        SELECT request_sha256, response FROM idempotency_keys AS stored
        WHERE stored.caller_id = wanted.caller_id AND stored.rpc = wanted.rpc AND stored.key = wanted.key
        LIMIT 1
    ) AS stored ON true
    ORDER BY place"""
_FREE = "SELECT pg_advisory_unlock(number) FROM unnest($1::bigint[]) AS number"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key: the caller's, for one RPC."""

    caller_id: str
    rpc: str
    key: str
    number: int = field(init=False, compare=False)
    """The advisory lock's: 64 bits of a hash."""

    def __post_init__(self) -> None:
        digest = hashlib.sha256("\0".join((self.caller_id, self.rpc, self.key)).encode()).digest()
        object.__setattr__(self, "number", int.from_bytes(digest[:8], signed=True))


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored under a key: the request's SHA-256, and how it was answered."""

    request_sha256: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of taking a key."""

    known: bool
    """Whether Postgres could be asked; nothing else is known where it could not."""
    in_use: bool = False
    """Whether another replica has it."""
    stored: Stored | None = None


class KeyLocks:
    """The keys that this process has in use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: Session | None = None
        self._wanted: list[tuple[Key, asyncio.Future[Taken]]] = []
        self._held: set[int] = set()
        self._freed: list[int] = []
        self._talking: asyncio.Task[None] | None = None
        self._paused_until = 0.0

    async def take(self, key: Key) -> Taken:
        """Takes a key that nobody in this process has, unless it is in use elsewhere or was answered."""
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._wanted.append((key, future))
        self._talk()
        try:
            return await future
        except asyncio.CancelledError:
            self.free(key)
            raise

    def free(self, key: Key) -> None:
        """Gives a key back, if it is held, without waiting for it."""
        if key.number in self._held:
            self._held.remove(key.number)
            self._freed.append(key.number)
            self._talk()

    def _talk(self) -> None:
        if self._talking is None:
            self._talking = asyncio.create_task(self._talk_on())

    async def _talk_on(self) -> None:
        """Has Postgres do what is asked for, until nothing is."""
        try:
            while self._wanted or self._freed:
                wanted = [(key, future) for key, future in self._wanted if not future.cancelled()]
                self._wanted = []
                taken = await self._ask([key for key, _ in wanted])
                for (key, future), one in zip(wanted, taken, strict=True):
                    if future.cancelled():
                        self.free(key)
                    else:
                        future.set_result(one)
        finally:
            self._talking = None

    async def _ask(self, wanted: list[Key]) -> list[Taken]:
        now = asyncio.get_running_loop().time()
        try:
            if self._session is None or self._session.is_closed():
                self._lose()
            if now < self._paused_until or not (wanted or self._freed):
                return [Taken(known=False)] * len(wanted)
            async with asyncio.timeout(STATEMENT_SECONDS):
                rows = await self._exchange(wanted)
        except Exception as error:  # whatever it is, requests can do without
            _log.warning("keys in use are not known", error=brief(error))
            self._lose()
            self._paused_until = now + PAUSE_SECONDS
            return [Taken(known=False)] * len(wanted)
        self._held.update(key.number for key, row in zip(wanted, rows, strict=True) if row["taken"])
        return [
            Taken(
                known=True,
                in_use=row["taken"] is False,
                stored=None if row["response"] is None else Stored(row["request_sha256"], row["response"]),
            )
            for row in rows
        ]

    async def _exchange(self, wanted: list[Key]) -> list[asyncpg.Record]:
        if self._session is None:
            self._session = await self._database.session()
        if self._freed:
            freed, self._freed = self._freed, []
            await self._session.execute(_FREE, freed)
        if not wanted:
            return []
        fields = zip(*((key.caller_id, key.rpc, key.key, key.number) for key in wanted), strict=True)
        return await self._session.fetch(_TAKE, *map(list, fields))

    def _lose(self) -> None:
        """Forgets the session and so gives back all keys at once, those in use too."""
        self._held.clear()
        self._freed.clear()
        if self._session is not None:
            self._session.terminate()
            self._session = None
