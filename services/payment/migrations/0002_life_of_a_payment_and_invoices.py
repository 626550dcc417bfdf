"""The whole life of a payment: refunds, reviews that expire, legal transitions only; and invoices."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Extends the schema."""
    op.execute("""
        ALTER TABLE payments
            ADD COLUMN refunded bigint NOT NULL DEFAULT 0,
            ADD COLUMN invoice_id text COLLATE "C",
            ADD COLUMN review_expire_time timestamptz,  -- IN_REVIEW: when it is declined
            ADD COLUMN settle_failures integer NOT NULL DEFAULT 0,  -- settle_attempts counted crashes, too
            ADD CONSTRAINT no_more_is_refunded_than_was_paid CHECK (refunded BETWEEN 0 AND amount);
        CREATE INDEX payments_by_state ON payments (state, id DESC);
        CREATE INDEX payments_to_expire ON payments (review_expire_time) WHERE review_expire_time IS NOT NULL;

        -- What was already in review when this came is not left there for ever.
        UPDATE payments SET review_expire_time = now() + interval '7 days' WHERE state = 'IN_REVIEW';

        -- Nor is what replicas of the version before add.
        CREATE FUNCTION let_review_expire() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.review_expire_time := NEW.create_time + interval '7 days';
            RETURN NEW;
        END $$;
        CREATE TRIGGER let_review_expire BEFORE INSERT ON payments
            FOR EACH ROW WHEN (NEW.state = 'IN_REVIEW' AND NEW.review_expire_time IS NULL)
            EXECUTE FUNCTION let_review_expire();

        ALTER TABLE payment_events ADD COLUMN refunded bigint NOT NULL DEFAULT 0;

        CREATE OR REPLACE FUNCTION record_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO payment_events (payment_id, sequence, state, state_reason, refunded, create_time)
            VALUES (NEW.id, NEW.sequence, NEW.state, NEW.state_reason, NEW.refunded, NEW.update_time);
            RETURN NULL;
        END $$;

        -- Nobody can take a payment where it must not go.
        CREATE FUNCTION require_legal_transition() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (OLD.state, NEW.state) NOT IN (
                ('IN_REVIEW', 'AUTHORIZED'), ('IN_REVIEW', 'DECLINED'), ('IN_REVIEW', 'CANCELLED'),
                ('AUTHORIZED', 'SETTLED'), ('AUTHORIZED', 'FAILED'), ('AUTHORIZED', 'CANCELLED'),
                ('SETTLED', 'SETTLED'), ('SETTLED', 'REFUNDED')
            ) OR NEW.sequence <> OLD.sequence + 1 THEN
                RAISE EXCEPTION 'payment % cannot go from % (%) to % (%)',
                    OLD.id, OLD.state, OLD.sequence, NEW.state, NEW.sequence;
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER require_legal_transition BEFORE UPDATE OF state ON payments
            FOR EACH ROW EXECUTE FUNCTION require_legal_transition();

        CREATE TABLE invoices (
            id text COLLATE "C" PRIMARY KEY,
            payee_id text COLLATE "C" NOT NULL,
            payer_id text COLLATE "C" NOT NULL CHECK (payer_id <> payee_id),
            lines jsonb NOT NULL,                     -- [{description, quantity, unit_amount}]
            currency_code text NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            due_date date NOT NULL,
            description text NOT NULL,
            state text NOT NULL CHECK (state IN ('OPEN', 'PAID', 'VOID')),
            payment_id text COLLATE "C" REFERENCES payments,
            sequence integer NOT NULL,
            create_time timestamptz NOT NULL,
            update_time timestamptz NOT NULL,
            CONSTRAINT paid_by_a_payment CHECK (state <> 'PAID' OR payment_id IS NOT NULL),
            CONSTRAINT void_without_a_payment CHECK (state <> 'VOID' OR payment_id IS NULL)
        );
        CREATE INDEX invoices_of_payee ON invoices (payee_id, id DESC);
        CREATE INDEX invoices_of_payer ON invoices (payer_id, id DESC);
        ALTER TABLE payments ADD CONSTRAINT payments_of_invoices FOREIGN KEY (invoice_id) REFERENCES invoices;
        CREATE UNIQUE INDEX an_invoice_is_paid_once ON payments (invoice_id)
            WHERE invoice_id IS NOT NULL AND state IN ('AUTHORIZED', 'IN_REVIEW', 'SETTLED', 'REFUNDED');

        -- An invoice is PAID in the transaction that settles its payment, and free again in the one that ends it.
        CREATE FUNCTION follow_payment() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.state IN ('AUTHORIZED', 'IN_REVIEW') THEN
                IF TG_OP = 'UPDATE' THEN
                    RETURN NULL;
                END IF;
                UPDATE invoices SET payment_id = NEW.id, sequence = sequence + 1, update_time = NEW.update_time
                WHERE id = NEW.invoice_id AND state = 'OPEN' AND payment_id IS NULL;
            ELSIF NEW.state = 'SETTLED' AND OLD.state = 'AUTHORIZED' THEN
                UPDATE invoices SET state = 'PAID', sequence = sequence + 1, update_time = NEW.update_time
                WHERE id = NEW.invoice_id AND state = 'OPEN' AND payment_id = NEW.id;
            ELSIF NEW.state IN ('DECLINED', 'FAILED', 'CANCELLED') AND TG_OP = 'UPDATE' THEN
                UPDATE invoices SET payment_id = NULL, sequence = sequence + 1, update_time = NEW.update_time
                WHERE id = NEW.invoice_id AND state = 'OPEN' AND payment_id = NEW.id;
            ELSE
                RETURN NULL;
            END IF;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'invoice % is not to be paid by payment %', NEW.invoice_id, NEW.id;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER follow_payment AFTER INSERT OR UPDATE OF state ON payments
            FOR EACH ROW WHEN (NEW.invoice_id IS NOT NULL) EXECUTE FUNCTION follow_payment();

        CREATE INDEX idempotency_keys_by_age ON idempotency_keys (create_time);
    """)
