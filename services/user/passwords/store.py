"""All SQL of attempts, of passwords as they change, and of their resets."""

from collections.abc import Sequence
from datetime import timedelta

from services.runtime import audit
from services.runtime.bus import PASSWORD
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from services.runtime.postgres import Connection, Database
from services.runtime.sweep import Sweep
from services.user.domain import Credentials
from services.user.passwords import domain, events
from services.user.passwords.domain import (
    CODES_PER_RESET,
    RESET_LIFETIME,
    WINDOW,
    InvalidResetCode,
    PasswordResetNotFound,
    Reset,
    WrongPassword,
)
from services.user.store import tell_of_ends

# Not now(), which is when the transaction began: two failures at once are one after the other.
_WAIT = """
    SELECT extract(epoch FROM max(until) - clock_timestamp())::float8 FROM (
        SELECT expire_time - $3::interval AS until FROM attempts WHERE key = $1
        UNION ALL
        SELECT expire_time FROM attempts WHERE key = $2 AND failures >= $4
    ) AS waits"""
_COUNT_FAILURE = """
    INSERT INTO attempts AS known (key, failures, expire_time)
    VALUES ($1, 1, clock_timestamp() + ($3::interval[])[1] + $2::interval)
    ON CONFLICT (key) DO UPDATE SET (failures, expire_time) = (
        SELECT count, clock_timestamp() + ($3::interval[])[least(count, cardinality($3))] + $2::interval FROM (
            SELECT CASE WHEN known.expire_time <= clock_timestamp() THEN 1 ELSE known.failures + 1 END AS count
        ) AS now
    )
    WHERE known.expire_time - $2::interval <= clock_timestamp()"""
_COUNT = """
    INSERT INTO attempts AS known (key, failures, expire_time) VALUES ($1, 1, clock_timestamp() + $2::interval)
    ON CONFLICT (key) DO UPDATE SET (failures, expire_time) = (
        SELECT
            CASE WHEN is_over THEN 1 ELSE known.failures + 1 END,
            CASE WHEN is_over THEN excluded.expire_time ELSE known.expire_time END
        FROM (SELECT known.expire_time <= clock_timestamp() AS is_over) AS known_so_far
    )
    WHERE known.failures < $3 OR known.expire_time <= clock_timestamp()"""
_FORGIVE = """
    WITH forgotten AS (DELETE FROM attempts WHERE key = $1)
    UPDATE attempts SET failures = failures - 1 WHERE key = $2 AND failures > 0"""
_FORGET = "DELETE FROM attempts WHERE key = $1"

_REPLACE = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2 AND state = 'ACTIVE'"
_END_SESSIONS = "DELETE FROM sessions WHERE user_id = $1 AND id <> $2 RETURNING id, user_id"
_REVOKE_KEYS = "DELETE FROM api_keys WHERE user_id = $1 RETURNING id, user_id"

# There is one for addresses that nobody has, too, so that nothing takes longer for those that somebody has.
_REPLACE_RESET = """
    INSERT INTO password_resets (account, id, user_id, expire_time)
    VALUES ($1, $2, coalesce($3, ''), now() + $4::interval)
    ON CONFLICT (account) DO UPDATE SET id = $2, user_id = excluded.user_id, wrong_codes = 0,
        expire_time = excluded.expire_time"""
_FIND_ACTIVE = """
    SELECT id FROM users WHERE lower(email COLLATE "C") = lower($1 COLLATE "C") AND state = 'ACTIVE'"""
_GET_RESET = """
    SELECT password_resets.id, user_id, email, expire_time FROM password_resets JOIN users ON users.id = user_id
    WHERE password_resets.id = $1 AND expire_time > now() AND wrong_codes < $2 AND state = 'ACTIVE'"""
_COUNT_CODE = """
    UPDATE password_resets SET wrong_codes = wrong_codes + 1
    WHERE account = $1 AND expire_time > now() AND wrong_codes < $2
    RETURNING id, user_id, expire_time"""
_UNCOUNT_CODE = "UPDATE password_resets SET wrong_codes = wrong_codes - 1 WHERE id = $1"
_TAKE_RESET = "DELETE FROM password_resets WHERE id = $1"
_DROP_RESET = "DELETE FROM password_resets WHERE account = $1"


class Attempts:
    """How often somebody failed, as all replicas see it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def wait(self, account: bytes, origin: bytes, per_origin: int) -> float:
        """Returns the seconds until the next attempt; none are left where that is not positive."""
        row = await self._database.fetchrow(_WAIT, account, origin, WINDOW, per_origin)
        return (row[0] or 0.0) if row else 0.0

    async def count_failure(self, account: bytes, waits: Sequence[timedelta]) -> bool:
        """Counts a failure, after which the account waits as `waits` says. Returns False where it waits already."""
        return await self._done(_COUNT_FAILURE, account, WINDOW, waits)

    async def count(self, key: bytes, limit: int) -> bool:
        """Counts one of so many in WINDOW. Returns False where there were as many."""
        return await self._done(_COUNT, key, WINDOW, limit)

    async def forgive(self, account: bytes, origin: bytes) -> None:
        """Forgets the failures of an account, and the last one of an address."""
        await self._database.execute(_FORGIVE, account, origin)

    def sweep(self) -> Sweep:
        """Returns the sweep of what is over."""
        return Sweep(self._database, "attempts", "expire_time", timedelta(0))

    async def _done(self, query: str, *args: object) -> bool:
        async with self._database.connection() as connection:
            return await connection.execute(query, *args) == "INSERT 0 1"


class PasswordsOfUsers:
    """Passwords as they change, and the resets that wait for their codes."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def change(self, credentials: Credentials, password_hash: str, session_id: str) -> None:
        """Replaces a password, ends all sessions of its user but this one, and tells. Raises WrongPassword."""
        user = credentials.user
        async with self._outbox.transaction() as connection:
            await connection.execute(_DROP_RESET, domain.account(user.email))
            done = await connection.execute(_REPLACE, user.id, credentials.password_hash, password_hash)
            if done == "UPDATE 0":  # somebody was faster
                raise WrongPassword
            await self._tell(connection, user.id, session_id)

    async def reset(self, reset: Reset, credentials: Credentials, password_hash: str) -> None:
        """Does the same with all sessions, once, revokes all API keys and forgets the failed log-ins.

        Raises InvalidResetCode. Whoever knew the old password may have made themselves a key.
        """
        async with self._outbox.transaction() as connection:
            taken = await connection.execute(_TAKE_RESET, reset.id)
            done = await connection.execute(_REPLACE, reset.user_id, credentials.password_hash, password_hash)
            if (taken, done) != ("DELETE 1", "UPDATE 1"):  # somebody was faster, or the user was suspended
                raise InvalidResetCode
            await connection.execute(_FORGET, domain.account(reset.email))
            await self._tell(connection, reset.user_id, "")
            revoked = await connection.fetch(_REVOKE_KEYS, reset.user_id)
            await tell_of_ends(self._outbox, connection, revoked)
            for key in revoked:
                await audit.record(connection, f"apiKeys/{key['id']}", reset.user_id)

    async def ask(self, email: str) -> None:
        """Replaces the reset of whoever has the address, and tells them. Does as much where nobody has it."""
        reset_id = new_id("pwd")
        async with self._outbox.transaction() as connection:
            user_id = await connection.fetchval(_FIND_ACTIVE, email)
            await connection.execute(_REPLACE_RESET, domain.account(email), reset_id, user_id, RESET_LIFETIME)
            told = connection.transaction()
            await told.start()
            await self._outbox.add_to(PASSWORD, connection, [events.reset_requested(reset_id, user_id or "")])
            await audit.record(connection, f"users/{user_id}")
            await (told.commit() if user_id else told.rollback())

    async def get_reset(self, reset_id: str) -> Reset:
        """Returns a reset that waits for its code. Raises PasswordResetNotFound."""
        row = await self._database.fetchrow(_GET_RESET, reset_id, CODES_PER_RESET)
        if row is None:
            raise PasswordResetNotFound(reset_id=reset_id)
        return Reset(**row)

    async def guess(self, email: str) -> Reset:
        """Returns the reset that whoever has the address waits for, and counts a guess. Raises InvalidResetCode."""
        row = await self._database.fetchrow(_COUNT_CODE, domain.account(email), CODES_PER_RESET)
        if row is None:
            raise InvalidResetCode
        return Reset(email=email, **row)

    async def take_back(self, reset: Reset) -> None:
        """Does not count the last guess: it was right, but not used."""
        await self._database.execute(_UNCOUNT_CODE, reset.id)

    def sweep(self) -> Sweep:
        """Returns the sweep of expired resets."""
        return Sweep(self._database, "password_resets", "expire_time", timedelta(0))

    async def _tell(self, connection: Connection, user_id: str, but_session: str) -> None:
        ended = await connection.fetch(_END_SESSIONS, user_id, but_session)
        await tell_of_ends(self._outbox, connection, ended)
        await self._outbox.add_to(PASSWORD, connection, [events.changed(new_id("pwd"), user_id)])
        await audit.record(connection, f"users/{user_id}", user_id)
