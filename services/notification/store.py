"""All SQL of notifications and of preferences."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta

from services.notification.domain import Notification, NotificationNotFound, Preferences
from services.runtime import audit
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database
from services.runtime.sweep import Sweep

KEPT = timedelta(days=400)

_ADD = """
    INSERT INTO notifications (id, user_id, kind, text, payment_id, document_id, create_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7)"""
_GET = """
    SELECT id, user_id, kind, text, payment_id, document_id, create_time, read_time
    FROM notifications LEFT JOIN reads ON notification_id = id """
_LIST_OF = _GET + "WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
_LIST_UNREAD_OF = _GET + "WHERE user_id = $1 AND id < $2 AND read_time IS NULL ORDER BY id DESC LIMIT $3"
_READ = """
    INSERT INTO reads (notification_id, read_time)
    SELECT id, now() FROM notifications WHERE id = $1 AND user_id = $2
    ON CONFLICT DO NOTHING"""
_READ_ALL = """
    INSERT INTO reads (notification_id, read_time)
    SELECT id, now() FROM notifications WHERE user_id = $1 AND NOT EXISTS (SELECT FROM reads WHERE notification_id = id)
    ORDER BY id
    ON CONFLICT DO NOTHING"""
_UNREAD = """
    SELECT count(*) FROM notifications
    WHERE user_id = $1 AND NOT EXISTS (SELECT FROM reads WHERE notification_id = id)"""

_GET_PREFERENCES = """
    SELECT user_id, in_app, email, sms, push, phone_number, push_token, sequence, update_time
    FROM preferences WHERE user_id = ANY($1)"""
_LOCK_PREFERENCES = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_PUT_PREFERENCES = """
    INSERT INTO preferences (user_id, in_app, email, sms, push, phone_number, push_token, sequence, update_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (user_id) DO UPDATE SET in_app = $2, email = $3, sms = $4, push = $5, phone_number = $6,
        push_token = $7, sequence = $8, update_time = $9"""


class Notifications:
    """What users were told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, connection: Connection, notifications: Sequence[Notification]) -> None:
        """Keeps notifications."""
        rows = [
            (one.id, one.user_id, one.kind, one.text, one.payment_id, one.document_id, one.create_time)
            for one in notifications
        ]
        await connection.executemany(_ADD, rows)

    async def list_of(self, user_id: str, page: Page, *, unread_only: bool = False) -> list[Notification]:
        """Returns a user's notifications, newest first."""
        query = _LIST_UNREAD_OF if unread_only else _LIST_OF
        rows = await self._database.fetch(query, user_id, page.before, page.rows)
        return [Notification(**row) for row in rows]

    async def read(self, user_id: str, notification_id: str) -> Notification:
        """Notes that a user has read a notification, and returns it. Raises NotificationNotFound."""
        async with self._database.transaction() as connection:
            await connection.execute(_READ, notification_id, user_id)
            row = await connection.fetchrow(_GET + "WHERE id = $1 AND user_id = $2", notification_id, user_id)
        if row is None:
            raise NotificationNotFound(notification_id=notification_id)
        return Notification(**row)

    async def read_all(self, user_id: str) -> int:
        """Notes that a user has read everything. Returns how many have come meanwhile."""
        async with self._database.transaction() as connection:
            await connection.execute(_READ_ALL, user_id)
            return int(await connection.fetchval(_UNREAD, user_id))

    async def unread(self, user_id: str) -> int:
        """Returns how many notifications a user has not read."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval(_UNREAD, user_id))

    def sweep(self) -> Sweep:
        """Returns the sweep of what happened long ago, read or not."""
        return Sweep(self._database, "notifications", "create_time", KEPT)


class PreferencesOfUsers:
    """By which channels users want to be told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str) -> Preferences:
        """Returns a user's preferences."""
        async with self._database.connection() as connection:
            return (await self.of(connection, [user_id]))[user_id]

    async def of(self, connection: Connection, user_ids: Collection[str]) -> Mapping[str, Preferences]:
        """Returns the preferences of several users, by their ids."""
        preferences = dict.fromkeys(user_ids, Preferences())
        for row in await connection.fetch(_GET_PREFERENCES, list(user_ids)):
            user_id, *values = row
            preferences[user_id] = Preferences(*values)
        return preferences

    async def update(self, user_id: str, change: Callable[[Preferences], Preferences]) -> Preferences:
        """Writes what `change` makes of a user's preferences, and returns it. Raises what `change` raises."""
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_PREFERENCES, user_id)  # there may be no row yet
            before = (await self.of(connection, [user_id]))[user_id]
            after = change(before)
            if after != before:
                await connection.execute(
                    _PUT_PREFERENCES,
                    user_id,
                    after.in_app,
                    after.email,
                    after.sms,
                    after.push,
                    after.phone_number,
                    after.push_token,
                    after.sequence,
                    after.update_time,
                )
                await audit.record(connection, f"preferences/{user_id}")
        return after
