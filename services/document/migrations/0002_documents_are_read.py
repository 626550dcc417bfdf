"""Documents are read before they are accepted; their events; and uploads that are sent again."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Extends the schema. What was accepted without being read is read."""
    op.execute("""
        ALTER TABLE documents
            ADD COLUMN sequence integer NOT NULL DEFAULT 1,         -- counts the states
            ADD COLUMN verify_time timestamptz,                     -- PENDING: when it is tried, or tried again
            ADD COLUMN due_time timestamptz NOT NULL DEFAULT now(), -- PENDING: when it would be, if nothing was away
            ADD COLUMN verify_failures integer NOT NULL DEFAULT 0,
            ADD COLUMN unreadable text[] NOT NULL DEFAULT '{}',     -- checks of which nobody can tell how they come out
            ADD COLUMN expire_date date,
            ADD COLUMN verdict text NOT NULL DEFAULT '',            -- the last: VERIFIED, or the first check not passed
            ADD COLUMN judged_by text NOT NULL DEFAULT '',          -- a digest of the profile as it was then
            -- Of what is PENDING. To the version before, a document is accepted when nothing is wrong in its checks.
            ALTER COLUMN checks SET DEFAULT '[["READABLE", "It has not been read yet."]]';
        UPDATE documents SET verdict = coalesce(
            (SELECT check_ ->> 0 FROM jsonb_array_elements(checks) WITH ORDINALITY AS each (check_, place)
                WHERE check_ ->> 1 <> '' ORDER BY place LIMIT 1),
            'VERIFIED');
        -- One a second, so that new ones need not wait; everybody's newest first, for payments need one.
        UPDATE documents SET state = 'PENDING', sequence = 2, verify_time = turns.time, due_time = turns.time,
            checks = DEFAULT
        FROM (
            SELECT id, now() + interval '1 second' * (row_number() OVER (ORDER BY nth, id DESC) - 1) AS time
            FROM (
                SELECT id, row_number() OVER (PARTITION BY owner_id ORDER BY id DESC) AS nth
                FROM documents WHERE kind IN ('PASSPORT', 'ID_CARD', 'DRIVING_LICENCE')) AS of_owner) AS turns
        WHERE documents.id = turns.id;
        CREATE INDEX documents_to_verify ON documents (verify_time) WHERE verify_time IS NOT NULL;

        -- Only whoever counts the states has read the document: replicas of the version before have not.
        CREATE FUNCTION require_reading() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' THEN
                NEW.sequence := OLD.sequence + 1;
            END IF;
            NEW.state := 'PENDING';
            NEW.checks := '[["READABLE", "It has not been read yet."]]';
            NEW.verify_time := now();
            NEW.due_time := now();
            RETURN NEW;
        END $$;
        CREATE TRIGGER require_reading_of_new BEFORE INSERT ON documents
            FOR EACH ROW WHEN (NEW.state <> 'PENDING') EXECUTE FUNCTION require_reading();
        CREATE TRIGGER require_reading BEFORE UPDATE OF state ON documents
            FOR EACH ROW WHEN (NEW.sequence = OLD.sequence) EXECUTE FUNCTION require_reading();

        CREATE TABLE outbox (
            position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            message_id text NOT NULL,
            subject text NOT NULL,
            payload bytea NOT NULL,
            traceparent text NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now()
        );

        CREATE TABLE handled_events (
            consumer text NOT NULL,
            message_id text NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (consumer, message_id)
        );
        CREATE INDEX handled_events_by_age ON handled_events (create_time);

        CREATE TABLE idempotency_keys (
            caller_id text COLLATE "C" NOT NULL,
            rpc text COLLATE "C" NOT NULL,
            key text COLLATE "C" NOT NULL,
            request_sha256 bytea NOT NULL,
            response bytea NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (caller_id, rpc, key)
        );
        CREATE INDEX idempotency_keys_by_age ON idempotency_keys (create_time);
    """)
