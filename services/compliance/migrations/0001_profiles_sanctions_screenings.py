"""Users' profiles, the sanctions list, and the record of screenings."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the schema."""
    op.execute("""
        CREATE TABLE profiles (
            user_id text COLLATE "C" PRIMARY KEY,
            sequence integer NOT NULL,                -- of the newest event
            display_name text NOT NULL,
            country text NOT NULL,
            date_of_birth date,
            create_time timestamptz NOT NULL,
            update_time timestamptz NOT NULL
        );

        CREATE TABLE sanctions_list (
            sha256 bytea NOT NULL,                    -- of the file it came from
            load_time timestamptz NOT NULL DEFAULT now()
        );
        CREATE UNIQUE INDEX sanctions_list_is_one ON sanctions_list ((true));

        CREATE TABLE sanctions_entries (
            number integer PRIMARY KEY,
            name text NOT NULL,
            kind text NOT NULL,
            program text NOT NULL,
            remarks text NOT NULL
        );

        CREATE TABLE screenings (
            payment_id text COLLATE "C" PRIMARY KEY,
            payer_id text COLLATE "C" NOT NULL,
            currency_code text NOT NULL,
            amount numeric NOT NULL,
            decision text NOT NULL,
            score integer NOT NULL CHECK (score BETWEEN 0 AND 100),
            reasons text[] NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX screenings_of_payer ON screenings (payer_id, create_time);

        CREATE TABLE handled_events (
            consumer text NOT NULL,
            message_id text NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (consumer, message_id)
        );
    """)
