"""Settlement, where something goes wrong: crashes, faults of one payment, accounts in use."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from payment.v1 import payment_pb2

from services.payment.ledger import store as ledger_store
from services.payment.settlement import Settlement
from services.runtime.ids import new_id
from services.runtime.postgres import DatabaseUnavailable
from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, euros, open_house
from tests.waiting import eventually

Payment = payment_pb2.Payment

_FAULT = """
    CREATE TABLE faulty (payment_id text PRIMARY KEY);
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM faulty WHERE payment_id = NEW.payment_id) THEN
            RAISE EXCEPTION 'a fault of payment %', NEW.payment_id;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER fail BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION fail();"""
_LATER = "UPDATE payments SET settle_time = settle_time - interval '8 seconds' WHERE id = $1"
"""As if that time had passed."""


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as opened:
        await opened.database.execute(_FAULT)
        yield opened
        await opened.require_right_books()


@asynccontextmanager
async def faulty(house: House, payment_id: str) -> AsyncIterator[None]:
    """While this lasts, the money of a payment cannot be moved."""
    await house.database.execute("INSERT INTO faulty VALUES ($1)", payment_id)
    yield
    await house.database.execute("DELETE FROM faulty")


async def failures(house: House, payment_id: str) -> int:
    row = await house.database.fetchrow("SELECT settle_failures FROM payments WHERE id = $1", payment_id)
    assert row is not None
    return int(row["settle_failures"])


async def waiting(house: House, payment_id: str) -> float:
    """The seconds until a payment comes due."""
    row = await house.database.fetchrow(
        "SELECT extract(epoch FROM settle_time - now())::float8 AS left FROM payments WHERE id = $1", payment_id
    )
    assert row is not None
    return float(row["left"])


async def test_a_payment_whose_settlement_crashed_comes_again_soon_and_it_is_not_its_fault(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)

    async def claimed() -> bool:
        return payment.id in await house.payments.claim_due(100)

    async with house.settling_paused():
        payment = await house.pay(payer, payee, 1)
        await eventually(claimed)  # and whoever claimed it is gone
        assert not await claimed()
        assert 4 < await waiting(house, payment.id) <= 5
        assert await failures(house, payment.id) == 0
        await house.database.execute(_LATER, payment.id)
        assert await claimed()
        await house.database.execute(_LATER, payment.id)
    assert (await house.settled(payer, payment.id)).state == Payment.SETTLED
    assert (await house.account(payee)).balance == euros(1)


async def test_replicas_share_the_work(house: House) -> None:
    payer, payee = await house.user_with(60), await house.user_with(0)
    async with house.settling_paused():
        payments = [await house.pay(payer, payee, 1) for _ in range(60)]
    replicas = [asyncio.create_task(Settlement(house.payments).run()) for _ in range(2)]  # and the one that goes on
    for payment in payments:
        assert (await house.settled(payer, payment.id)).sequence == 2
    for replica in replicas:
        replica.cancel()
    assert (await house.account(payee)).balance == euros(60)


async def test_a_payment_that_cannot_be_settled_holds_up_no_other_and_is_settled_when_it_can_be(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    async with house.settling_paused():
        payment = await house.pay(payer, payee, 1)
        others = [await house.pay(payer, payee, 1) for _ in range(5)]
    async with faulty(house, payment.id):
        for other in others:
            assert (await house.settled(payer, other.id)).state == Payment.SETTLED
        await eventually(lambda: failures(house, payment.id))
        assert (await house.payment(payment.id)).state == Payment.AUTHORIZED
    assert (await house.settled(payer, payment.id)).state == Payment.SETTLED
    assert await failures(house, payment.id) >= 1


async def test_a_payment_that_fails_ten_times_is_failed_and_its_money_released(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    waits = []
    async with house.settling_paused():
        payment = await house.pay(payer, payee, 10)
    async with faulty(house, payment.id):
        for times in range(1, 10):

            async def failed(times: int = times) -> bool:
                return await failures(house, payment.id) == times

            await eventually(failed)
            waits.append(round(await waiting(house, payment.id)))
            await house.database.execute(_LATER, payment.id)
        last = await house.settled(payer, payment.id)
    assert waits == [1, 2, 4, 8, 8, 8, 8, 8, 8]
    assert (last.state, last.state_reason, last.sequence) == (Payment.FAILED, "SETTLEMENT_FAILED", 2)
    assert (await house.account(payer)).available == euros(10)
    assert (await house.account(payee)).balance.units == 0


async def test_a_payment_to_an_account_in_use_holds_up_no_other(house: House) -> None:
    payer, slow, payee = await house.user_with(10), await house.user_with(0), await house.user_with(0)
    account = await house.account(slow)
    async with house.database.transaction() as using:
        await ledger_store.lock(using, account.id)
        held = await house.pay(await house.user_with(1), slow, 1)
        for _ in range(3):
            other = await house.pay(payer, payee, 1)
            assert (await house.settled(payer, other.id)).state == Payment.SETTLED
        assert (await house.payment(held.id)).state == Payment.AUTHORIZED
    assert (await house.settled(slow, held.id)).state == Payment.SETTLED


async def test_a_payment_that_a_frozen_replica_has_locked_is_settled_by_another(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    account = await house.account(payee)
    with pytest.raises(DatabaseUnavailable):
        async with house.database.transaction() as frozen:
            assert await frozen.fetchval("SHOW idle_in_transaction_session_timeout") == "15s"
            await frozen.execute("SET LOCAL idle_in_transaction_session_timeout = '500ms'")
            await ledger_store.lock(frozen, account.id)
            payment = await house.pay(payer, payee, 1)
            assert (await house.settled(payer, payment.id)).state == Payment.SETTLED
            await ledger_store.lock(frozen, account.id)


async def test_a_payment_that_its_payees_account_cannot_take_is_failed_at_once(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(1)
    async with house.settling_paused():
        payment = await house.pay(payer, payee, 10)
        rich = (await house.account(payee)).id
        async with house.database.transaction() as connection:
            clearing = await connection.fetchval("SELECT id FROM accounts WHERE clearing")
            for account_id, amount in ((rich, 10**18 - 500), (clearing, 500 - 10**18)):
                await connection.execute(
                    """INSERT INTO entries (id, transaction_id, account_id, currency_code, amount, kind, create_time)
                    VALUES ($1, 'rich', $2, 'EUR', $3, 'DEPOSIT', now())""",
                    new_id("ent"),
                    account_id,
                    amount,
                )
    last = await house.settled(payer, payment.id)
    assert (last.state, last.state_reason) == (Payment.FAILED, "BALANCE_LIMIT_EXCEEDED")
    assert (await house.account(payer)).available == euros(10)
