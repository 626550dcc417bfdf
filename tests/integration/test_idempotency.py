"""Idempotency keys: once is once, whatever is repeated, at the same time, on whichever replica."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from payment.v1 import payment_pb2, payment_pb2_grpc

from tests.integration.conftest import FreshDatabase
from tests.integration.replicas import IN_USE, Halt, House, NothingLeft, euros, open_house, refusal, replayed
from tests.integration.serving import detail, reason, trailers
from tests.waiting import eventually


@pytest.fixture
async def house(fresh_database: FreshDatabase, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), certificates) as opened:
        yield opened


async def test_a_request_that_moves_money_needs_a_key_and_a_valid_one(house: House) -> None:
    stub = payment_pb2_grpc.PaymentServiceStub(house.one.edge.user("usr_1", "customer"))
    error = await refusal(stub.CreatePayment(payment_pb2.CreatePaymentRequest(payee_id="usr_2", amount=euros(1))))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REQUIRED")
    for key in ("", "k" * 256, "two words", '"', '""', '"k'):
        assert reason(await refusal(house.one.pay(key))) == "INVALID_IDEMPOTENCY_KEY"
    assert house.one.servicer.begun == 0


async def test_a_key_is_the_same_quoted_and_bare(house: House) -> None:
    answer = await house.one.pay('"k"')
    assert await house.one.pay("k") == answer


async def test_fifty_requests_at_once_are_carried_out_once_and_answered_alike(house: House) -> None:
    calls = [house.one.pay("k") for _ in range(50)]
    answers = await asyncio.gather(*calls)
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert (await house.effects(), house.one.servicer.begun) == (1, 1)
    assert sorted([await replayed(call) for call in calls]) == [False] + [True] * 49


async def test_fifty_requests_at_once_on_two_replicas_are_carried_out_once_and_answered_alike(house: House) -> None:
    calls = [one.pay("k") for _ in range(25) for one in (house.one, house.other)]
    answers = await asyncio.gather(*calls)
    assert len({answer.id for answer in answers}) == 1
    assert (await house.effects(), house.one.servicer.begun + house.other.servicer.begun) == (1, 1)


async def test_many_keys_at_once_on_two_replicas_are_each_carried_out_once(house: House) -> None:
    calls = {key: [one.pay(key) for _ in range(5) for one in (house.one, house.other)] for key in map(str, range(40))}
    answers = [{answer.id for answer in await asyncio.gather(*of_one)} for of_one in calls.values()]
    assert [len(ids) for ids in answers] == [1] * 40
    assert await house.effects() == len(set.union(*answers)) == 40
    await eventually(house.no_key_is_in_use)


@pytest.mark.parametrize("where", ["one", "other"])
async def test_a_request_that_is_still_running_is_in_use_and_says_when_to_try_again(house: House, where: str) -> None:
    house.one.servicer.before = halt = Halt()
    running = asyncio.ensure_future(house.one.pay("k"))
    await halt.reached.wait()
    error = await refusal(getattr(house, where).pay("k"))
    assert (error.code(), reason(error)) == (grpc.StatusCode.ABORTED, IN_USE)
    assert trailers(error)["retry-after"] == "1"
    assert detail(error, error_details_pb2.RetryInfo()).retry_delay.seconds == 1
    halt.go_on.set()
    answer = await running
    again = getattr(house, where).pay("k")
    assert await replayed(again)
    assert await again == answer
    assert await house.effects() == 1


@pytest.mark.parametrize("where", ["one", "other"])
async def test_a_request_that_ends_soon_is_waited_for(house: House, where: str) -> None:
    house.one.servicer.before = halt = Halt()
    running = asyncio.ensure_future(house.one.pay("k"))
    await halt.reached.wait()
    waiting = getattr(house, where).pay("k")
    asyncio.get_running_loop().call_later(0.2, halt.go_on.set)
    assert await replayed(waiting)
    assert await waiting == await running


async def test_waiting_takes_no_connection_from_others(house: House) -> None:
    house.one.servicer.before = halt = Halt()
    running = asyncio.ensure_future(house.one.pay("k"))
    await halt.reached.wait()
    waiting = [asyncio.ensure_future(house.one.pay("k")) for _ in range(100)]
    house.one.servicer.before = lambda: asyncio.sleep(0)
    async with asyncio.timeout(0.9):
        await house.one.pay("other")
    halt.go_on.set()
    assert {answer.id for answer in await asyncio.gather(*waiting)} == {(await running).id}


async def test_another_request_under_a_key_is_refused_once_it_is_known(house: House) -> None:
    house.one.servicer.before = halt = Halt()
    running = asyncio.ensure_future(house.one.pay("k", units=1))
    await halt.reached.wait()
    other = await refusal(house.one.pay("k", units=2))
    assert (reason(other), trailers(other)["x-http-code"]) == ("IDEMPOTENCY_KEY_REUSED", "422")
    assert reason(await refusal(house.other.pay("k", units=2))) == IN_USE
    halt.go_on.set()
    await running
    for one in (house.one, house.other):
        assert reason(await refusal(one.pay("k", units=2))) == "IDEMPOTENCY_KEY_REUSED"
    assert await house.effects() == 1


async def test_a_key_is_scoped_to_its_caller_and_its_rpc(house: House) -> None:
    payment = await house.one.pay("k", user="usr_1")
    assert (await house.one.pay("k", user="usr_3")).id != payment.id
    assert not await replayed(house.one.deposit("k", user="usr_1"))
    assert await house.effects() == 3


@pytest.mark.parametrize("where", ["one", "other"])
async def test_a_key_in_use_is_free_for_other_callers_and_rpcs(house: House, where: str) -> None:
    house.one.servicer.before = halt = Halt()
    running = asyncio.ensure_future(house.one.pay("k", user="usr_1"))
    await halt.reached.wait()
    house.one.servicer.before = lambda: asyncio.sleep(0)
    async with asyncio.timeout(0.9):
        await getattr(house, where).pay("k", user="usr_3")
        await getattr(house, where).deposit("k", user="usr_1")
    halt.go_on.set()
    await running
    assert await house.effects() == 3


async def test_a_failed_request_stores_nothing_and_frees_its_key_for_those_who_wait(house: House) -> None:
    halt = Halt()

    async def fail_the_first() -> None:
        if house.one.servicer.begun == 1:
            await halt()
            raise NothingLeft

    house.one.servicer.before = fail_the_first
    running = asyncio.ensure_future(house.one.pay("k"))
    await halt.reached.wait()
    waiting = [asyncio.ensure_future(one.pay("k")) for _ in range(5) for one in (house.one, house.other)]
    halt.go_on.set()
    assert reason(await refusal(running)) == "NOTHING_LEFT"
    assert len({answer.id for answer in await asyncio.gather(*waiting)}) == 1
    assert await house.effects() == 1
