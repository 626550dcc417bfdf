"""What all refresh tokens of a session begin with, to tell one that was used before from one that never was."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Extends the schema. A session has none until it is renewed by a replica that knows of families."""
    op.execute("ALTER TABLE sessions ADD COLUMN family_sha256 bytea;")
