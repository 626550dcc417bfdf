"""Notifications."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the schema."""
    op.execute("""
        CREATE TABLE notifications (
            id text COLLATE "C" PRIMARY KEY,
            user_id text COLLATE "C" NOT NULL,
            kind text NOT NULL,
            text text NOT NULL,
            payment_id text NOT NULL,
            create_time timestamptz NOT NULL
        );
        CREATE INDEX notifications_of_user ON notifications (user_id, id DESC);

        CREATE TABLE handled_events (
            consumer text NOT NULL,
            message_id text NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (consumer, message_id)
        );
    """)
