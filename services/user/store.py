"""All SQL of users, sessions and signing keys."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from services.runtime import audit
from services.runtime.bus import SESSION
from services.runtime.outbox import Outbox
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database
from services.runtime.sweep import Sweep
from services.user import events
from services.user.domain import (
    KEY_NOTICE,
    MOST_SESSIONS,
    Credentials,
    EmailAlreadyExists,
    InvalidCredentials,
    InvalidRefreshToken,
    Profile,
    SigningKey,
    State,
    User,
    UserNotFound,
    UserSuspended,
    in_order,
    missing_turns,
    outlived,
)
from services.user.refresh_tokens import RefreshToken

_ROTATION_LOCK = 0x6B657973  # any number that all replicas share: "keys"

_ADD_USER = """
    INSERT INTO users (id, email, password_hash, display_name, country, date_of_birth, address, roles, state,
        version, event_sequence, create_time, update_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT DO NOTHING"""
_UPDATE_USER = """
    UPDATE users SET display_name = $2, country = $3, date_of_birth = $4, address = $5, roles = $6, state = $7,
        version = $8, event_sequence = $9, update_time = $10
    WHERE id = $1"""
_GET_USER = "SELECT * FROM users WHERE id = $1"
_FIND_USER = """SELECT * FROM users WHERE lower(email COLLATE "C") = lower($1 COLLATE "C")"""
_GET_USERS = "SELECT * FROM users WHERE id = ANY($1)"
_LIST_USERS = "SELECT * FROM users WHERE id < $1 ORDER BY id DESC LIMIT $2"
_REPLACE_HASH = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2"

# Who suspends the user at the same time, or takes a role away, waits until the session is there to be ended, or is
# waited for. The same goes for who replaces the password.
_OPEN_SESSION = """
    WITH holder AS (
        SELECT * FROM users WHERE id = $2 FOR SHARE
    ), opened AS (
        INSERT INTO sessions (id, user_id, refresh_sha256, family_sha256, create_time, expire_time)
        SELECT $1, id, $3, $4, $5, $6 FROM holder WHERE state = 'ACTIVE' AND password_hash = $7
    )
    SELECT * FROM holder"""
# What is locked is ended, or renewed, by somebody else: the next log-in sees what is left of it.
_END_OLDEST = """
    DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE id IN (
        SELECT id FROM sessions WHERE user_id = $1 ORDER BY id DESC OFFSET $2 LIMIT $2
    ) FOR UPDATE SKIP LOCKED) RETURNING id, user_id"""
# Of two at once the second waits for the first, then finds another token than its own.
_RENEW_SESSION = """
    UPDATE sessions SET refresh_sha256 = $3, family_sha256 = $6, expire_time = $5
    FROM users
    WHERE sessions.id = $1 AND refresh_sha256 = $2 AND expire_time > $4
        AND users.id = user_id AND users.state = 'ACTIVE'
    RETURNING users.*"""
_END_SESSION = "DELETE FROM sessions WHERE id = $1 RETURNING id, user_id"
# A session that was only renewed by replicas that do not know of families yet does not know its own.
_END_FAMILY = """
    DELETE FROM sessions WHERE id = $1 AND (family_sha256 = $2 OR family_sha256 IS NULL) RETURNING id, user_id"""
# The keys stay, and so may tokens of outside issuers: what they are good for now is asked anew.
_END_ALL = """
    WITH ended AS (DELETE FROM sessions WHERE user_id = $1 RETURNING id, user_id)
    SELECT id, user_id FROM ended
    UNION ALL SELECT id, user_id FROM api_keys WHERE user_id = $1
    UNION ALL SELECT id, id FROM users WHERE id = $1"""

_LIST_KEYS = "SELECT kid, sealed, sign_from FROM signing_keys"
_ADD_KEY = "INSERT INTO signing_keys (kid, sealed, sign_from, create_time) VALUES ($1, $2, $3, $4)"
_REMOVE_KEYS = "DELETE FROM signing_keys WHERE kid = ANY($1)"
_REVOKE_KEY = "DELETE FROM signing_keys WHERE kid = $1 RETURNING kid AS id, '' AS user_id, sign_from"
# $1: when the revoked key's turn began. Its successor may have been at work already.
_NEXT_TURN = """
    UPDATE signing_keys SET sign_from = $2
    WHERE sign_from = (SELECT min(sign_from) FROM signing_keys WHERE sign_from > $1) AND sign_from > $2"""
_HASTEN_KEY = "UPDATE signing_keys SET sign_from = greatest($1, create_time + $2) WHERE sign_from > $1"


class Users:
    """Users; each change that identifies them with its event in one transaction."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add(self, user: User, password_hash: str) -> None:
        """Adds a new user. Raises EmailAlreadyExists."""
        async with self._outbox.transaction() as connection:
            profile = user.profile
            done = await connection.execute(
                _ADD_USER,
                user.id,
                user.email,
                password_hash,
                profile.display_name,
                profile.country,
                profile.date_of_birth,
                profile.address,
                in_order(user.roles),
                user.state.name,
                user.version,
                user.event_sequence,
                user.create_time,
                user.update_time,
            )
            if done == "INSERT 0 0":
                raise EmailAlreadyExists
            await self._outbox.add(connection, user.id, user.event_sequence, events.to_proto(user))
            await audit.record(connection, f"users/{user.id}", user.id)

    async def update(self, user_id: str, change: Callable[[User], User]) -> User:
        """Writes what `change` makes of a user, and returns it. Raises UserNotFound and what `change` raises."""
        async with self._outbox.transaction() as connection:
            row = await connection.fetchrow(_GET_USER + " FOR UPDATE", user_id)
            if row is None:
                raise UserNotFound(user_id=user_id)
            before = _user(row)
            user = change(before)
            if user == before:
                return user
            profile = user.profile
            await connection.execute(
                _UPDATE_USER,
                user.id,
                profile.display_name,
                profile.country,
                profile.date_of_birth,
                profile.address,
                in_order(user.roles),
                user.state.name,
                user.version,
                user.event_sequence,
                user.update_time,
            )
            if user.event_sequence > before.event_sequence:
                await self._outbox.add(connection, user.id, user.event_sequence, events.to_proto(user))
            if user.state is State.SUSPENDED or before.roles - user.roles:
                await tell_of_ends(self._outbox, connection, await connection.fetch(_END_ALL, user.id))
            await audit.record(connection, f"users/{user.id}")
        return user

    async def get(self, user_id: str) -> User:
        """Returns a user. Raises UserNotFound."""
        return (await self.credentials_of(user_id)).user

    async def get_all(self, user_ids: Sequence[str]) -> list[User]:
        """Returns those of the users that exist."""
        return [_user(row) for row in await self._database.fetch(_GET_USERS, user_ids)]

    async def list_all(self, page: Page) -> list[User]:
        """Returns a page of all users and the first one after it."""
        return [_user(row) for row in await self._database.fetch(_LIST_USERS, page.before, page.rows)]

    async def credentials(self, email: str) -> Credentials | None:
        """Returns who logs in with this address."""
        row = await self._database.fetchrow(_FIND_USER, email)
        return None if row is None else Credentials(_user(row), row["password_hash"])

    async def credentials_of(self, user_id: str) -> Credentials:
        """Returns a user and their password's hash. Raises UserNotFound."""
        row = await self._database.fetchrow(_GET_USER, user_id)
        if row is None:
            raise UserNotFound(user_id=user_id)
        return Credentials(_user(row), row["password_hash"])

    async def replace_hash(self, credentials: Credentials, password_hash: str) -> bool:
        """Replaces the password's hash, unless somebody else did: then it returns False."""
        user_id, before = credentials.user.id, credentials.password_hash
        async with self._database.connection() as connection:
            return await connection.execute(_REPLACE_HASH, user_id, before, password_hash) == "UPDATE 1"


class Sessions:
    """Sessions, each with the SHA-256 of the one refresh token that works, and of what all of its tokens begin with."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def open(self, credentials: Credentials, token: RefreshToken, now: datetime, expires: datetime) -> User:
        """Opens a session and returns its user, as they are then; their oldest ones end. Raises UserSuspended.

        Raises InvalidCredentials where the password was replaced meanwhile.
        """
        user_id, password_hash = credentials.user.id, credentials.password_hash
        async with self._outbox.transaction() as connection:
            row = await connection.fetchrow(
                _OPEN_SESSION, token.session_id, user_id, token.sha256, token.family_sha256, now, expires, password_hash
            )
            if row is None or row["password_hash"] != password_hash:
                raise InvalidCredentials
            user = _user(row)
            if user.state is State.SUSPENDED:
                raise UserSuspended
            await tell_of_ends(self._outbox, connection, await connection.fetch(_END_OLDEST, user.id, MOST_SESSIONS))
            await audit.record(connection, f"sessions/{token.session_id}", user_id)
        return user

    async def renew(self, token: RefreshToken, new: RefreshToken, now: datetime, expires: datetime) -> User:
        """Exchanges the refresh token and returns the session's user. Raises InvalidRefreshToken.

        Any token of the session but the newest, unexpired one ends it: it was used before, by whomever.
        """
        row = await self._database.fetchrow(
            _RENEW_SESSION, token.session_id, token.sha256, new.sha256, now, expires, new.family_sha256
        )
        if row is None:
            async with self._outbox.transaction() as connection:
                await _end_session(self._outbox, connection, _END_FAMILY, token.session_id, token.family_sha256)
            raise InvalidRefreshToken
        return _user(row)

    async def end(self, session_id: str) -> None:
        """Ends a session, if there is one, and tells."""
        async with self._outbox.transaction() as connection:
            await _end_session(self._outbox, connection, _END_SESSION, session_id)

    def sweep(self) -> Sweep:
        """Returns the sweep of expired sessions."""
        return Sweep(self._database, "sessions", "expire_time", timedelta(0))


async def _end_session(outbox: Outbox, connection: Connection, query: str, *key: str | bytes) -> None:
    ended = await connection.fetchrow(query, *key)
    if ended is not None:
        await tell_of_ends(outbox, connection, [ended])
        await audit.record(connection, f"sessions/{ended['id']}", ended["user_id"])


async def tell_of_ends(outbox: Outbox, connection: Connection, ended: Iterable[asyncpg.Record]) -> None:
    """Has all who let clients in told of what ended, in its transaction: the ids, each with its user's."""
    now = datetime.now(UTC)
    told = ((row["id"], events.session_ended(row["id"], row["user_id"], now)) for row in ended)
    await outbox.add_to(SESSION, connection, told)


class SigningKeys:
    """Signing keys, as all replicas see them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def arrange(self, now: datetime, make: Callable[[datetime], SigningKey]) -> list[SigningKey]:
        """Makes the missing keys and removes the outlived ones, one replica at a time. Returns what there is then."""
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _ROTATION_LOCK)
            keys = [SigningKey(**row) for row in await connection.fetch(_LIST_KEYS)]
            gone = outlived(keys, now)
            await connection.execute(_REMOVE_KEYS, [key.kid for key in gone])
            new = [make(turn) for turn in missing_turns(keys, now)]
            for key in new:
                await connection.execute(_ADD_KEY, key.kid, key.sealed, key.sign_from, now)
        return [key for key in keys if key not in gone] + new

    async def hasten(self, now: datetime) -> None:
        """Makes it the next key's turn, now or as soon as it has been published long enough."""
        await self._database.execute(_HASTEN_KEY, now, KEY_NOTICE)

    async def revoke(self, kid: str, now: datetime, outbox: Outbox) -> bool:
        """Removes a key, has everybody told, and makes it the next one's turn. Returns whether there was such a key."""
        async with outbox.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _ROTATION_LOCK)
            revoked = await connection.fetchrow(_REVOKE_KEY, kid)
            if revoked is None:
                return False
            if revoked["sign_from"] <= now:
                await connection.execute(_NEXT_TURN, revoked["sign_from"], now)
            await tell_of_ends(outbox, connection, [revoked])
        return True


def _user(row: asyncpg.Record) -> User:
    return User(
        id=row["id"],
        email=row["email"],
        profile=Profile(row["display_name"], row["country"], row["date_of_birth"], row["address"]),
        roles=frozenset(row["roles"]),
        state=State[row["state"]],
        version=row["version"],
        event_sequence=row["event_sequence"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
