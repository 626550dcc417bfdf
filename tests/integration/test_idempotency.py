"""Idempotency keys: once is once, whatever is repeated, at the same time, on whichever replica, through crashes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2, payment_pb2_grpc

from services.runtime import idempotency
from services.runtime.contract import Method
from services.runtime.errors import FailedPrecondition
from services.runtime.ids import new_id
from services.runtime.keylocks import Key, KeyLocks
from services.runtime.postgres import Database, open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import METHODS, As, detail, reason, serving, trailers
from tests.waiting import eventually

_EFFECTS = "CREATE TABLE effects ()"
_LOCKS = """
    SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND datname = current_database()"""
_WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_IN_USE = "IDEMPOTENCY_KEY_IN_USE"


class NothingLeft(FailedPrecondition):
    """As any effect that an earlier one makes impossible."""

    message = "There is nothing left."


class Payments(payment_pb2_grpc.PaymentServiceServicer, payment_pb2_grpc.AccountServiceServicer):
    """Has one effect for each request it carries out, and does what a test asks for before that."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.begun = 0
        self.before: Callable[[], Any] = lambda: asyncio.sleep(0)

    async def CreatePayment(self, request: payment_pb2.CreatePaymentRequest, _: object) -> payment_pb2.Payment:
        payment = payment_pb2.Payment(id=new_id("pay"), payee_id=request.payee_id, amount=request.amount)
        await self._carry_out(payment)
        return payment

    async def CreateDeposit(self, request: payment_pb2.CreateDepositRequest, _: object) -> payment_pb2.Account:
        account = payment_pb2.Account(id=request.account_id)
        await self._carry_out(account)
        return account

    async def _carry_out(self, answer: Message) -> None:
        self.begun += 1
        await self.before()
        async with self.database.transaction() as connection:
            await connection.execute("INSERT INTO effects DEFAULT VALUES")
            await idempotency.record(connection, answer)


def euros(units: int) -> Money:
    return Money(currency_code="EUR", units=units)


@dataclass
class Replica:
    """One process of the service."""

    servicer: Payments
    edge: As

    def pay(self, key: str, units: int = 1, user: str = "usr_1") -> Any:
        stub = payment_pb2_grpc.PaymentServiceStub(self.edge.user(user, "customer", idempotency_key=key))
        return stub.CreatePayment(payment_pb2.CreatePaymentRequest(payee_id="usr_2", amount=euros(units)))

    def deposit(self, key: str, user: str = "usr_1") -> Any:
        stub = payment_pb2_grpc.AccountServiceStub(self.edge.user(user, "treasurer", idempotency_key=key))
        return stub.CreateDeposit(payment_pb2.CreateDepositRequest(account_id="acc_1", amount=euros(1)))


@dataclass
class Halt:
    """Stops whoever comes by until it is told to go on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> None:
        self.reached.set()
        await self.go_on.wait()


@dataclass
class House:
    """Replicas that share a database."""

    url: str
    database: Database
    one: Replica
    other: Replica

    async def effects(self) -> int:
        return len(await self.database.fetch("SELECT FROM effects"))

    async def no_key_is_in_use(self) -> bool:
        return not await self.database.fetch(_LOCKS)

    async def somebody_waits(self) -> bool:
        return bool(await self.database.fetch(_WAITING))

    async def lose_sessions(self) -> None:
        """Ends all other connections, as the crash of a process or of Postgres does."""
        await self.database.fetch(_END_OTHERS)


@asynccontextmanager
async def replica(url: str, certificates: Path, methods: Mapping[str, Method] = METHODS) -> AsyncIterator[Replica]:
    async with open_database(url) as database:
        servicer = Payments(database)
        register = [
            partial(payment_pb2_grpc.add_PaymentServiceServicer_to_server, servicer),
            partial(payment_pb2_grpc.add_AccountServiceServicer_to_server, servicer),
        ]
        async with serving(register, certificates, "payment", idempotency.interceptor(database), methods) as port:
            edge = As(port, certificates, "payment")
            yield Replica(servicer, edge)
            await edge.close()


@pytest.fixture
async def house(fresh_database: FreshDatabase, certificates: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        url = fresh_database("payment")
        database = await stack.enter_async_context(open_database(url))
        await database.execute(_EFFECTS)
        one, other = [await stack.enter_async_context(replica(url, certificates)) for _ in range(2)]
        yield House(url, database, one, other)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def replayed(call: Any) -> bool:
    await call
    return dict(await call.initial_metadata()).get("idempotent-replayed") == "true"


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
    assert (error.code(), reason(error)) == (grpc.StatusCode.ABORTED, _IN_USE)
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
    assert reason(await refusal(house.other.pay("k", units=2))) == _IN_USE
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
        assert sorted(map(reason, calls)) == ["DEADLINE_PASSED", _IN_USE]
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
