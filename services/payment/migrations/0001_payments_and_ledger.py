"""Payments, their events, and the ledger whose rules the database itself keeps."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the schema."""
    op.execute("""
        CREATE TABLE accounts (
            id text COLLATE "C" PRIMARY KEY,
            owner_id text COLLATE "C" NOT NULL,
            currency_code text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
            clearing boolean NOT NULL DEFAULT false,  -- the world outside: where deposits come from
            balance bigint NOT NULL DEFAULT 0,        -- in the currency's smallest unit, as all amounts
            reserved bigint NOT NULL DEFAULT 0,
            create_time timestamptz NOT NULL,
            UNIQUE (owner_id, currency_code),
            CONSTRAINT nothing_is_overdrawn CHECK (reserved >= 0 AND (clearing OR balance >= reserved))
        );

        CREATE TABLE payments (
            id text COLLATE "C" PRIMARY KEY,
            payer_id text COLLATE "C" NOT NULL,
            payee_id text COLLATE "C" NOT NULL CHECK (payee_id <> payer_id),
            payer_account_id text COLLATE "C" NOT NULL REFERENCES accounts,
            payee_account_id text COLLATE "C" NOT NULL REFERENCES accounts,
            currency_code text NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            description text NOT NULL,
            state text NOT NULL,
            state_reason text NOT NULL,
            risk_score integer NOT NULL CHECK (risk_score BETWEEN 0 AND 100),
            sequence integer NOT NULL,
            create_time timestamptz NOT NULL,
            update_time timestamptz NOT NULL,
            settle_time timestamptz,                  -- when settlement is due; NULL: not at all
            settle_attempts integer NOT NULL DEFAULT 0
        );
        CREATE INDEX payments_of_payer ON payments (payer_id, id DESC);
        CREATE INDEX payments_of_payee ON payments (payee_id, id DESC);
        CREATE INDEX payments_due ON payments (settle_time) WHERE settle_time IS NOT NULL;

        CREATE TABLE payment_events (
            payment_id text COLLATE "C" NOT NULL REFERENCES payments,
            sequence integer NOT NULL,
            state text NOT NULL,
            state_reason text NOT NULL,
            create_time timestamptz NOT NULL,
            PRIMARY KEY (payment_id, sequence)
        );

        -- Every change of a payment is an event: nobody can forget to write one.
        CREATE FUNCTION record_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO payment_events (payment_id, sequence, state, state_reason, create_time)
            VALUES (NEW.id, NEW.sequence, NEW.state, NEW.state_reason, NEW.update_time);
            RETURN NULL;
        END $$;
        CREATE TRIGGER record_change AFTER INSERT OR UPDATE OF state ON payments
            FOR EACH ROW EXECUTE FUNCTION record_change();

        CREATE TABLE entries (
            id text COLLATE "C" PRIMARY KEY,
            transaction_id text COLLATE "C" NOT NULL,
            account_id text COLLATE "C" NOT NULL REFERENCES accounts,
            currency_code text NOT NULL,
            amount bigint NOT NULL CHECK (amount <> 0),
            payment_id text COLLATE "C" REFERENCES payments,
            kind text NOT NULL,
            create_time timestamptz NOT NULL
        );
        CREATE INDEX entries_of_account ON entries (account_id, id DESC);
        CREATE INDEX entries_of_transaction ON entries (transaction_id);

        -- A balance is the sum of its entries: only an entry changes it.
        CREATE FUNCTION apply_entry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE accounts SET balance = balance + NEW.amount
            WHERE id = NEW.account_id AND currency_code = NEW.currency_code;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'entry % is not in the currency of its account', NEW.id;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER apply_entry AFTER INSERT ON entries FOR EACH ROW EXECUTE FUNCTION apply_entry();

        -- Double entry: what leaves one account arrives on another.
        CREATE FUNCTION require_zero_sum() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (
                SELECT FROM entries WHERE transaction_id = NEW.transaction_id
                GROUP BY currency_code HAVING sum(amount) <> 0
            ) THEN
                RAISE EXCEPTION 'transaction % does not sum to zero', NEW.transaction_id;
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER require_zero_sum AFTER INSERT ON entries
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION require_zero_sum();

        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'entries are never changed: write a reversing transaction';
        END $$;
        CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

        CREATE TABLE outbox (
            position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            message_id text NOT NULL,
            subject text NOT NULL,
            payload bytea NOT NULL,
            traceparent text NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now()
        );

        CREATE TABLE idempotency_keys (
            caller_id text COLLATE "C" NOT NULL,
            rpc text COLLATE "C" NOT NULL,
            key text COLLATE "C" NOT NULL,
            request_sha256 bytea NOT NULL,
            response bytea NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (caller_id, rpc, key)
        );
    """)
