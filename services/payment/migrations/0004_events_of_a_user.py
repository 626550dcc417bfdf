"""The events of all payments of a user, counted without gaps, for streams that go on where they stopped."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Extends the schema. The events from before are numbered by their time."""
    op.execute("""
        CREATE TABLE user_event_counts (
            user_id text COLLATE "C" PRIMARY KEY,
            events bigint NOT NULL
        ) WITH (fillfactor = 50);

        CREATE TABLE user_events (
            user_id text COLLATE "C" NOT NULL,
            position bigint NOT NULL,
            payment_id text COLLATE "C" NOT NULL,
            sequence integer NOT NULL,
            PRIMARY KEY (user_id, position),
            FOREIGN KEY (payment_id, sequence) REFERENCES payment_events
        );

        LOCK TABLE payment_events IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO user_events (user_id, position, payment_id, sequence)
        SELECT user_id, row_number() OVER (PARTITION BY user_id ORDER BY time, payment_id, sequence),
            payment_id, sequence
        FROM (
            SELECT unnest(ARRAY[payer_id, payee_id]) AS user_id, payment_id, payment_events.sequence,
                max(payment_events.create_time) OVER (PARTITION BY payment_id ORDER BY payment_events.sequence) AS time
            FROM payment_events JOIN payments ON payments.id = payment_id
        ) AS every;
        INSERT INTO user_event_counts (user_id, events) SELECT user_id, count(*) FROM user_events GROUP BY user_id;

        -- At the end of a transaction, when all else is locked: what has a smaller number is committed before. The rows
        -- stay locked for the moment of the commit only, in the order of their users.
        CREATE FUNCTION count_for_users() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            WITH parties AS (
                SELECT unnest(ARRAY[least(payer_id, payee_id), greatest(payer_id, payee_id)]) AS user_id
                FROM payments WHERE id = NEW.payment_id
            ), counted AS (
                INSERT INTO user_event_counts (user_id, events) SELECT user_id, 1 FROM parties
                ON CONFLICT (user_id) DO UPDATE SET events = user_event_counts.events + 1
                RETURNING user_id, events
            )
            INSERT INTO user_events (user_id, position, payment_id, sequence)
            SELECT user_id, events, NEW.payment_id, NEW.sequence FROM counted;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER count_for_users AFTER INSERT ON payment_events
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_for_users();
    """)
