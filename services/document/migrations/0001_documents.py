"""Documents. Their files are in the object store."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the schema."""
    op.execute("""
        CREATE TABLE documents (
            id text COLLATE "C" PRIMARY KEY,
            owner_id text COLLATE "C" NOT NULL,
            kind text NOT NULL,
            file_name text NOT NULL,
            content_type text NOT NULL,
            size_bytes bigint NOT NULL CHECK (size_bytes > 0),
            sha256 text COLLATE "C" NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
            state text NOT NULL,
            checks jsonb NOT NULL,                    -- [[name, what is wrong], ...] in the order of the checks
            create_time timestamptz NOT NULL
        );
        CREATE INDEX documents_of_owner ON documents (owner_id, id DESC);
        CREATE INDEX documents_by_content ON documents (sha256, create_time);
    """)
