"""Who did what to which resource: rows are added, and never changed or removed."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Extends the schema."""
    op.execute("""
        CREATE TABLE audit (
            id text COLLATE "C" PRIMARY KEY,
            create_time timestamptz NOT NULL,
            actor_id text COLLATE "C" NOT NULL,
            credential_id text COLLATE "C" NOT NULL,
            roles text[] NOT NULL,
            action text COLLATE "C" NOT NULL,
            resource text COLLATE "C" NOT NULL,
            request_id text NOT NULL
        );
        CREATE INDEX audit_of_actor ON audit (actor_id, id DESC);
        CREATE INDEX audit_of_resource ON audit (resource, id DESC);

        CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the audit trail is append-only';
        END $$;
        CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_stays();
        CREATE TRIGGER audit_stays BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();
    """)
