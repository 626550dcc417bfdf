"""What users have read, by which channels they are told, their webhooks, and what is on its way to them."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Extends the schema."""
    op.execute("""
        -- No column of notifications: the release before makes its notifications of whatever columns there are.
        CREATE TABLE reads (
            notification_id text COLLATE "C" PRIMARY KEY REFERENCES notifications ON DELETE CASCADE,
            read_time timestamptz NOT NULL
        );

        CREATE TABLE preferences (
            user_id text COLLATE "C" PRIMARY KEY,
            in_app boolean NOT NULL,
            email boolean NOT NULL,
            sms boolean NOT NULL,
            push boolean NOT NULL,
            phone_number text NOT NULL,
            push_token text NOT NULL,
            sequence integer NOT NULL,
            update_time timestamptz NOT NULL
        );

        CREATE TABLE webhooks (
            id text COLLATE "C" PRIMARY KEY,
            user_id text COLLATE "C" NOT NULL,
            url text NOT NULL,
            event_types text[] NOT NULL,              -- none: all
            description text NOT NULL,
            state text NOT NULL CHECK (state IN ('ENABLED', 'DISABLED')),
            sequence integer NOT NULL,
            create_time timestamptz NOT NULL,
            update_time timestamptz NOT NULL
        );
        CREATE INDEX webhooks_of_user ON webhooks (user_id, id DESC);

        CREATE TABLE webhook_secrets (
            webhook_id text COLLATE "C" NOT NULL REFERENCES webhooks ON DELETE CASCADE,
            secret bytea NOT NULL,
            create_time timestamptz NOT NULL,
            expire_time timestamptz,                  -- NULL: it is the newest one
            PRIMARY KEY (webhook_id, secret)
        );

        -- What one user is to be told of one event by one channel, at one address.
        CREATE TABLE deliveries (
            id text COLLATE "C" PRIMARY KEY,
            user_id text COLLATE "C" NOT NULL,
            channel text NOT NULL CHECK (channel IN ('EMAIL', 'SMS', 'PUSH', 'WEBHOOK')),
            webhook_id text COLLATE "C" REFERENCES webhooks ON DELETE CASCADE,
            target text COLLATE "C" NOT NULL GENERATED ALWAYS AS (coalesce(webhook_id, channel)) STORED,
            event_id text COLLATE "C" NOT NULL,       -- its Nats-Msg-Id: payment.<payment id>.<sequence>
            event_type text NOT NULL,                 -- payment.settled
            payment_id text COLLATE "C" NOT NULL,
            body text NOT NULL,                       -- a sentence; to a webhook: JSON, byte for byte what is signed
            state text NOT NULL CHECK (state IN ('PENDING', 'DELIVERED', 'FAILED')),
            attempts integer NOT NULL DEFAULT 0,
            response_status integer NOT NULL DEFAULT 0,
            error text NOT NULL DEFAULT '',
            create_time timestamptz NOT NULL,
            last_attempt_time timestamptz,
            next_attempt_time timestamptz,            -- PENDING: when it is due; tried just now: due again
            CHECK ((channel = 'WEBHOOK') = (webhook_id IS NOT NULL)),
            CONSTRAINT once_per_event UNIQUE NULLS NOT DISTINCT (event_id, user_id, channel, webhook_id)
        );
        CREATE INDEX deliveries_due ON deliveries (target, next_attempt_time) WHERE state = 'PENDING';
        CREATE INDEX deliveries_by_age ON deliveries (create_time);
        CREATE INDEX deliveries_of_webhook ON deliveries (webhook_id, id DESC) WHERE webhook_id IS NOT NULL;

        CREATE INDEX handled_events_by_age ON handled_events (create_time);
    """)
