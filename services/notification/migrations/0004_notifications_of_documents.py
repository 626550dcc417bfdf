"""Notifications about documents."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Extends the schema."""
    op.execute("""
        ALTER TABLE notifications ADD COLUMN document_id text NOT NULL DEFAULT '';
    """)
