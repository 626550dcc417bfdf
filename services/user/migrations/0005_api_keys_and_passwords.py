"""API keys, resets of passwords, and who tried too often."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Extends the schema."""
    op.execute("""
        CREATE TABLE api_keys (
            id text COLLATE "C" PRIMARY KEY,
            user_id text COLLATE "C" NOT NULL REFERENCES users,
            sha256 bytea NOT NULL UNIQUE,
            display_name text NOT NULL,
            roles text[] NOT NULL,
            create_time timestamptz NOT NULL,
            expire_time timestamptz NOT NULL,
            last_use_time timestamptz
        );
        CREATE INDEX api_keys_of_user ON api_keys (user_id, id DESC);
        CREATE INDEX api_keys_by_age ON api_keys (expire_time);

        CREATE TABLE password_resets (
            account bytea PRIMARY KEY,                -- the SHA-256 of the address that it was asked for
            id text COLLATE "C" NOT NULL UNIQUE,
            user_id text COLLATE "C" NOT NULL,        -- empty: nobody has that address
            wrong_codes int NOT NULL DEFAULT 0,
            expire_time timestamptz NOT NULL
        );
        CREATE INDEX password_resets_by_age ON password_resets (expire_time);

        -- What is counted of an account or an address: the SHA-256 of which it is.
        CREATE TABLE attempts (
            key bytea PRIMARY KEY,
            failures int NOT NULL,
            expire_time timestamptz NOT NULL
        );
        CREATE INDEX attempts_by_age ON attempts (expire_time);
    """)
