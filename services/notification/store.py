"""All SQL of notification."""

from services.notification.domain import Notification
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database

_ADD = "INSERT INTO notifications (id, user_id, kind, text, payment_id, create_time) VALUES ($1, $2, $3, $4, $5, $6)"
_LIST_OF = "SELECT * FROM notifications WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"


class Notifications:
    """What users were told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, connection: Connection, notification: Notification) -> None:
        """Keeps a notification."""
        await connection.execute(
            _ADD,
            notification.id,
            notification.user_id,
            notification.kind,
            notification.text,
            notification.payment_id,
            notification.create_time,
        )

    async def list_of(self, user_id: str, page: Page) -> list[Notification]:
        """Returns a user's notifications, newest first."""
        rows = await self._database.fetch(_LIST_OF, user_id, page.before, page.rows)
        return [Notification(**row) for row in rows]
