"""A migration runs while payments are made: whoever gets in its way is asked to try again."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from payment.v1 import payment_pb2

from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, open_house, refusal
from tests.integration.serving import reason
from tests.waiting import eventually

_WAITING = """
    SELECT FROM pg_locks WHERE NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@pytest.fixture
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as opened, opened.settling_paused():
        yield opened
        await opened.require_right_books()


async def test_a_table_may_grow_while_payments_are_made(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    first, second = [await house.pay(payer, payee, 1) for _ in range(2)]
    await house.pays(payer).CancelPayment(payment_pb2.CancelPaymentRequest(payment_id=first.id))
    await house.database.execute("ALTER TABLE payments ADD COLUMN of_the_next_release text")

    async def cancelled() -> bool:
        try:
            await house.pays(payer).CancelPayment(payment_pb2.CancelPaymentRequest(payment_id=second.id))
        except grpc.aio.AioRpcError as error:
            assert reason(error) == "DATABASE_UNAVAILABLE"  # try again, that is
            return False
        return True

    await eventually(cancelled)


async def test_a_payment_gets_out_of_the_way_of_a_migration(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    async with house.database.transaction() as migration:
        await migration.execute("LOCK payments IN ACCESS EXCLUSIVE MODE")
        paying = asyncio.create_task(refusal(house.pay(payer, payee, 1, key="meanwhile")))
        await eventually(partial(_somebody_waits, house))
        await migration.execute("LOCK accounts IN ACCESS EXCLUSIVE MODE")
        assert reason(await paying) == "DATABASE_UNAVAILABLE"
    assert (await house.pay(payer, payee, 1, key="meanwhile")).state == payment_pb2.Payment.AUTHORIZED


async def _somebody_waits(house: House) -> bool:
    return bool(await house.database.fetch(_WAITING))
