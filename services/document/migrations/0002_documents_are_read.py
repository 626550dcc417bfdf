"""Documents are read before they are accepted; their events; and uploads that are sent again."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Extends the schema. What was accepted without being read is read."""
    op.execute("""
        ALTER TABLE documents
            ADD COLUMN sequence integer NOT NULL DEFAULT 1,         -- counts the states
            ADD COLUMN verify_time timestamptz,                     -- PENDING: when it is to be read
            ADD COLUMN verify_failures integer NOT NULL DEFAULT 0,
            ADD COLUMN unreadable text[] NOT NULL DEFAULT '{}',     -- checks of which nobody can tell how they come out
            ADD COLUMN expire_date date;
        UPDATE documents SET state = 'PENDING', verify_time = now(), sequence = 2
        WHERE kind IN ('PASSPORT', 'ID_CARD', 'DRIVING_LICENCE');
        CREATE INDEX documents_to_verify ON documents (verify_time) WHERE verify_time IS NOT NULL;

        -- Only whoever counts the states has read the document: replicas of the version before have not.
        CREATE FUNCTION require_reading() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' THEN
                NEW.sequence := OLD.sequence + 1;
            END IF;
            NEW.state := 'PENDING';
            NEW.verify_time := now();
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
