"""Users, their sessions, and the keys that access tokens are signed with."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the schema."""
    op.execute("""
        CREATE TABLE users (
            id text COLLATE "C" PRIMARY KEY,
            email text NOT NULL,
            password_hash text NOT NULL,              -- Argon2id, with its parameters
            display_name text NOT NULL,
            country text NOT NULL,
            date_of_birth date NOT NULL,
            address text NOT NULL,
            roles text[] NOT NULL,
            state text NOT NULL,
            version integer NOT NULL,
            event_sequence integer NOT NULL,
            create_time timestamptz NOT NULL,
            update_time timestamptz NOT NULL
        );
        CREATE UNIQUE INDEX users_by_email ON users (lower(email COLLATE "C"));

        CREATE TABLE sessions (
            id text COLLATE "C" PRIMARY KEY,
            user_id text COLLATE "C" NOT NULL REFERENCES users,
            refresh_sha256 bytea NOT NULL,            -- of the newest refresh token, the only one that works
            create_time timestamptz NOT NULL,
            expire_time timestamptz NOT NULL          -- the refresh token's
        );
        CREATE INDEX sessions_of_user ON sessions (user_id);

        CREATE TABLE signing_keys (
            kid text COLLATE "C" PRIMARY KEY,
            sealed bytea NOT NULL,                    -- the private key: PKCS #8, PEM, encrypted
            sign_from timestamptz NOT NULL,
            create_time timestamptz NOT NULL
        );

        CREATE TABLE outbox (
            position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            message_id text NOT NULL,
            subject text NOT NULL,
            payload bytea NOT NULL,
            traceparent text NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now()
        );
    """)
