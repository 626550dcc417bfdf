"""All SQL of API keys."""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import asyncpg

from services.runtime import audit
from services.runtime.outbox import Outbox
from services.runtime.paging import Page
from services.runtime.postgres import Database
from services.runtime.revocations import SessionEnded
from services.runtime.sweep import Sweep
from services.runtime.worker import repeat
from services.user.api_keys.domain import API_KEYS_PER_USER, ApiKey, ApiKeyNotFound, TooManyApiKeys, require_held
from services.user.domain import State, UserNotFound, UserSuspended, in_order
from services.user.store import tell_of_ends

_NOTE_SECONDS = 60.0
"""How soon a use is noted that could not be when it happened, without another one."""
_NOTED_AGAIN = timedelta(minutes=1)
"""How much later a use must be than the one that is noted."""

# Who makes a key at the same time, suspends the owner or takes a role away waits for this, or is waited for.
_OWNER = "SELECT roles, state FROM users WHERE id = $1 FOR NO KEY UPDATE"
_SESSION = "SELECT id FROM sessions WHERE id = $1"
_COUNT = "SELECT count(*) FROM api_keys WHERE user_id = $1 AND expire_time > $2"
_ADD = """
    INSERT INTO api_keys (id, user_id, sha256, display_name, roles, create_time, expire_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7)"""
_SELECT = "SELECT id, user_id, display_name, roles, create_time, expire_time, last_use_time FROM api_keys "
_GET = _SELECT + "WHERE user_id = $1 AND id = $2 AND expire_time > now()"
_LIST = _SELECT + "WHERE user_id = $1 AND id < $2 AND expire_time > now() ORDER BY id DESC LIMIT $3"
_REVOKE = "DELETE FROM api_keys WHERE user_id = $1 AND id = $2 RETURNING id, user_id"
_RESOLVE = """
    SELECT key.id, user_id, key.display_name, key.create_time, expire_time, last_use_time,
        ARRAY(SELECT unnest(key.roles) INTERSECT SELECT unnest(users.roles)) AS roles
    FROM api_keys AS key JOIN users ON users.id = user_id
    WHERE sha256 = $1 AND expire_time > now() AND state = 'ACTIVE'"""
# What is locked is being revoked, swept, or noted by another replica.
_USED = """
    UPDATE api_keys SET last_use_time = used.time
    FROM unnest($1::text[], $2::timestamptz[]) AS used (id, time)
    WHERE api_keys.id = used.id AND api_keys.id IN (
        SELECT id FROM api_keys WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED
    ) AND (last_use_time IS NULL OR last_use_time <= used.time - $3::interval)"""


class ApiKeys:
    """API keys, each with the SHA-256 of what is sent."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._uses: dict[str, datetime] = {}
        """When keys were used last, where that is still to be noted."""
        self._used = asyncio.Event()

    async def add(self, key: ApiKey, sha256: bytes, held: Collection[str], session_id: str) -> None:
        """Adds a new key for a caller who holds these roles in a session, or without one.

        Raises UserNotFound, UserSuspended, SessionEnded, RoleNotHeld or TooManyApiKeys.
        """
        async with self._database.transaction() as connection:
            owner = await connection.fetchrow(_OWNER, key.user_id)
            if owner is None:  # who came with the token of an outside issuer, say
                raise UserNotFound(user_id=key.user_id)
            if owner["state"] != State.ACTIVE.name:
                raise UserSuspended
            if session_id and not await connection.fetchval(_SESSION, session_id):  # not everybody may have heard yet
                raise SessionEnded
            require_held(key.roles, frozenset(owner["roles"]).intersection(held))
            if await connection.fetchval(_COUNT, key.user_id, key.create_time) >= API_KEYS_PER_USER:
                raise TooManyApiKeys(limit=API_KEYS_PER_USER)
            await connection.execute(
                _ADD,
                key.id,
                key.user_id,
                sha256,
                key.display_name,
                in_order(key.roles),
                key.create_time,
                key.expire_time,
            )
            await audit.record(connection, f"apiKeys/{key.id}")

    async def get(self, user_id: str, key_id: str) -> ApiKey:
        """Returns a user's key. Raises ApiKeyNotFound."""
        return _key(await self._database.fetchrow(_GET, user_id, key_id))

    async def list_of(self, user_id: str, page: Page) -> list[ApiKey]:
        """Returns a page of a user's keys and the first one after it."""
        return [_key(row) for row in await self._database.fetch(_LIST, user_id, page.before, page.rows)]

    async def revoke(self, user_id: str, key_id: str) -> None:
        """Removes a user's key, and tells. Raises ApiKeyNotFound."""
        async with self._outbox.transaction() as connection:
            row = await connection.fetchrow(_REVOKE, user_id, key_id)
            if row is None:
                raise ApiKeyNotFound
            await tell_of_ends(self._outbox, connection, [row])
            await audit.record(connection, f"apiKeys/{key_id}")

    async def resolve(self, sha256: bytes) -> ApiKey:
        """Returns the key that is used, with those of its roles that its owner has now. Raises ApiKeyNotFound.

        That it was used is noted later, once a minute, so that nobody waits for it.
        """
        key = _key(await self._database.fetchrow(_RESOLVE, sha256))
        now = datetime.now(UTC)
        if key.last_use_time is None or now - key.last_use_time >= _NOTED_AGAIN:
            self._uses[key.id] = now
            self._used.set()
        return key

    async def note_uses(self) -> None:
        """Notes when keys were used, for ever."""
        await repeat(self._note, self._used, _NOTE_SECONDS)

    async def _note(self) -> bool:
        noted = dict(self._uses)
        if noted:
            await self._database.execute(_USED, list(noted), list(noted.values()), _NOTED_AGAIN)
            self._uses = {key_id: time for key_id, time in self._uses.items() if noted.get(key_id) != time}
        return False

    def sweep(self) -> Sweep:
        """Returns the sweep of expired keys."""
        return Sweep(self._database, "api_keys", "expire_time", timedelta(0))


def _key(row: asyncpg.Record | None) -> ApiKey:
    if row is None:
        raise ApiKeyNotFound
    return ApiKey(**{**row, "roles": frozenset(row["roles"])})
