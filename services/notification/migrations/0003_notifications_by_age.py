"""Notifications are swept by their age."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Extends the schema."""
    op.execute("CREATE INDEX notifications_by_age ON notifications (create_time)")
