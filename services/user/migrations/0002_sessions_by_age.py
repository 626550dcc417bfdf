"""Sessions by when they expire, for their sweep."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Extends the schema."""
    op.execute("CREATE INDEX sessions_by_age ON sessions (expire_time);")
