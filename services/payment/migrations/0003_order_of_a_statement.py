"""The order of a statement is that in which its entries were committed; and only entries move a balance."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Extends the schema. Entries from before keep position 0, and their order by id."""
    op.execute("""
        ALTER TABLE accounts ADD COLUMN entry_count bigint NOT NULL DEFAULT 0;
        ALTER TABLE entries ADD COLUMN position bigint NOT NULL DEFAULT 0;
        CREATE INDEX entries_in_order ON entries (account_id, position DESC, id DESC);

        -- An entry gets its position under the lock of its account: none with a smaller one can appear later. Their
        -- ids cannot promise that, for they come from the clocks of several machines.
        CREATE OR REPLACE FUNCTION apply_entry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE accounts SET balance = balance + NEW.amount, entry_count = entry_count + 1
            WHERE id = NEW.account_id AND currency_code = NEW.currency_code
            RETURNING entry_count INTO NEW.position;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'entry % is not in the currency of its account', NEW.id;
            END IF;
            RETURN NEW;
        END $$;
        DROP TRIGGER apply_entry ON entries;
        CREATE TRIGGER apply_entry BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION apply_entry();

        CREATE FUNCTION refuse_without_entry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the balance of account % is moved by entries only', NEW.id;
        END $$;
        CREATE TRIGGER refuse_without_entry BEFORE UPDATE OF balance ON accounts
            FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_without_entry();
        CREATE TRIGGER refuse_to_begin_with_money BEFORE INSERT ON accounts
            FOR EACH ROW WHEN (NEW.balance <> 0 OR NEW.reserved <> 0) EXECUTE FUNCTION refuse_without_entry();
    """)
