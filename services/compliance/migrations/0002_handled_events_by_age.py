"""Handled events by age, for their sweep."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Extends the schema."""
    op.execute("CREATE INDEX handled_events_by_age ON handled_events (create_time);")
