"""Idempotency keys when clients go, deadlines pass, processes crash and Postgres is lost: once is still once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.runtime import postgres
from services.runtime.keylocks import Key, KeyLocks
from services.runtime.postgres import Database
from tests.integration.conftest import FreshDatabase
from tests.integration.replicas import IN_USE, Halt, House, NothingLeft, open_house, refusal, replayed, replica
from tests.integration.serving import METHODS, reason
from tests.waiting import eventually


@pytest.fixture
async def house(fresh_database: FreshDatabase, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), certificates) as opened:
        yield opened


async def test_a_request_whose_client_is_gone_frees_its_key(house: House) -> None:
    house.one.servicer.before = halt = Halt()
    running = house.one.pay("k")
    beginning = asyncio.ensure_future(running)
    await halt.reached.wait()
    beginning.cancel()
    await eventually(house.no_key_is_in_use)
    assert not await replayed(house.other.pay("k"))
    assert await house.effects() == 1


async def test_nobody_waits_beyond_the_deadline_and_what_is_ended_by_it_frees_its_key(
    house: House, certificates: Path
) -> None:
    short = {rpc: replace(method, deadline=0.5) for rpc, method in METHODS.items()}
    async with replica(house.url, certificates, short) as one:
        one.servicer.before = halt = Halt()
        calls = await asyncio.gather(*(refusal(one.pay("k")) for _ in range(2)))
        assert sorted(map(reason, calls)) == ["DEADLINE_PASSED", IN_USE]
        halt.go_on.set()
        assert not await replayed(one.pay("k"))
    assert await house.effects() == 1


async def test_a_request_that_is_cancelled_while_it_waits_leaves_no_lock(house: House) -> None:
    house.one.servicer.before = halt = Halt()
    running = asyncio.ensure_future(house.one.pay("k"))
    await halt.reached.wait()
    for one in (house.one, house.other):
        waiting = asyncio.ensure_future(one.pay("k"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await waiting
    halt.go_on.set()
    await running
    await eventually(house.no_key_is_in_use)


async def test_a_key_is_free_after_a_crash(house: House) -> None:
    house.one.servicer.before = halt = Halt()
    running = asyncio.ensure_future(house.one.pay("k"))
    await halt.reached.wait()
    await house.lose_sessions()
    assert not await replayed(house.other.pay("k"))
    halt.go_on.set()  # what was no crash after all comes too late, and is told what the other one was
    assert (await running).id == (await house.other.pay("k")).id
    assert await house.effects() == 1


async def test_requests_go_on_while_it_is_not_known_which_keys_are_in_use(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Database) -> Any:
        raise ConnectionRefusedError

    monkeypatch.setattr(Database, "session", away)
    answers = await asyncio.gather(*(one.pay("k") for _ in range(10) for one in (house.one, house.other)))
    assert len({answer.id for answer in answers}) == 1
    begun = house.one.servicer.begun
    assert await replayed(house.one.pay("k"))
    assert (await house.effects(), house.one.servicer.begun) == (1, begun)


async def test_a_request_that_fails_because_it_was_carried_out_elsewhere_is_answered_as_there(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Database) -> Any:
        raise ConnectionRefusedError

    async def too_late() -> None:
        await house.other.pay("k")
        raise NothingLeft

    monkeypatch.setattr(Database, "session", away)
    house.one.servicer.before = too_late
    assert await replayed(house.one.pay("k"))
    assert await house.effects() == 1


async def test_a_lock_that_comes_when_nobody_wants_it_any_more_is_given_back(house: House) -> None:
    locks = KeyLocks(house.database)
    one, other, last = (Key("usr_1", "rpc", key) for key in ("1", "2", "3"))

    async with house.database.transaction() as blocking:
        await blocking.execute("LOCK TABLE idempotency_keys")
        taking = asyncio.ensure_future(locks.take(one))
        await eventually(house.somebody_waits)
        taking.cancel()  # while Postgres is at it

    async def take_and_cancel() -> None:
        await locks.take(one)
        taking.cancel()  # when Postgres has answered
        locks.free(one)

    cancelling = asyncio.ensure_future(take_and_cancel())
    taking = asyncio.ensure_future(locks.take(other))
    await asyncio.gather(cancelling, taking, return_exceptions=True)
    assert taking.cancelled()

    await locks.take(last)
    locks.free(last)
    await eventually(house.no_key_is_in_use)


async def test_a_replica_that_is_frozen_does_not_keep_its_keys(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_SESSION_NOTICED_WHEN_FROZEN", {"idle_session_timeout": "300ms"})
    key = Key("usr_1", "/payment.v1.PaymentService/CreatePayment", "k")
    async with postgres.open_database(house.url) as of_the_frozen:
        frozen, other = KeyLocks(of_the_frozen), KeyLocks(house.database)
        await frozen.take(key)  # and then nothing is heard of it: its sockets are open, nothing else
        assert (await other.take(key)).in_use

        async def is_free() -> bool:
            return not (await other.take(key)).in_use

        await eventually(is_free)
        other.free(key)
