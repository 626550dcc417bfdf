"""Two replicas of a service whose requests have idempotency keys, and one effect each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2, payment_pb2_grpc

from services.runtime import idempotency
from services.runtime.contract import Method
from services.runtime.errors import FailedPrecondition
from services.runtime.ids import new_id
from services.runtime.postgres import Database, open_database
from tests.integration.serving import METHODS, As, serving

_EFFECTS = "CREATE TABLE effects ()"
_LOCKS = """
    SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND datname = current_database()"""
_WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
IN_USE = "IDEMPOTENCY_KEY_IN_USE"


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


@asynccontextmanager
async def open_house(url: str, certificates: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
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
