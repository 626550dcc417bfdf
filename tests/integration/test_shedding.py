"""More calls than can be carried out: what is let in is done, the rest is refused at once, and nothing else suffers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from payment.v1 import payment_pb2, payment_pb2_grpc
from user.v1 import user_pb2, user_pb2_grpc

from services.runtime.shedding import BURST_SECONDS, CROWD, MOST
from tests.integration.serving import As, detail, reason, serving, trailers
from tests.waiting import eventually

Answers = list[grpc.aio.AioRpcError | user_pb2.BatchGetUsersResponse]


class Users(user_pb2_grpc.UserServiceServicer):
    """Has calls wait until they may go on."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.go_on = asyncio.Event()

    async def GetUser(self, request: user_pb2.GetUserRequest, _: object) -> user_pb2.User:
        await self._wait()
        return user_pb2.User(id=request.user_id)

    async def BatchGetUsers(self, _: user_pb2.BatchGetUsersRequest, __: object) -> user_pb2.BatchGetUsersResponse:
        await self._wait()
        return user_pb2.BatchGetUsersResponse()

    async def _wait(self) -> None:
        self.in_flight += 1
        try:
            await self.go_on.wait()
        finally:
            self.in_flight -= 1


class House:
    """The user service as its neighbours see it."""

    def __init__(self, users: Users, port: int, certificates: Path) -> None:
        self.users = users
        self._edge, self._payment = (As(port, certificates, "user", peer) for peer in ("edge", "payment"))

    async def ask(self) -> user_pb2.User:
        """Asks from outside."""
        stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(self._edge.user("usr_1", "customer"))
        return await stub.GetUser(user_pb2.GetUserRequest(user_id="me"))

    async def ask_inside(self) -> user_pb2.BatchGetUsersResponse:
        """Asks as payment does for somebody whom the edge let in."""
        stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(self._payment.user())
        return await stub.BatchGetUsers(user_pb2.BatchGetUsersRequest(user_ids=["usr_1"]))

    @asynccontextmanager
    async def asking(self, number: int, *, inside: bool = False) -> AsyncIterator[list[asyncio.Task[object]]]:
        """Has that many wait for an answer."""
        ask: Callable[[], Coroutine[Any, Any, object]] = self.ask_inside if inside else self.ask
        asking = [asyncio.create_task(ask()) for _ in range(number)]
        await eventually(partial(self.waits_for, number), seconds=30)
        try:
            yield asking
        finally:
            self.users.go_on.set()
            await asyncio.gather(*asking, return_exceptions=True)

    @asynccontextmanager
    async def crowded(self) -> AsyncIterator[int]:
        """Has so many wait, for so long, that the next is refused. Yields their number."""
        async with self.asking(CROWD + 1) as asking:
            await eventually(partial(self._refuses_one_more, asking))
            yield self.users.in_flight

    async def _refuses_one_more(self, asking: list[asyncio.Task[object]]) -> bool:
        before, one = self.users.in_flight, asyncio.create_task(self.ask())
        asking.append(one)
        await eventually(partial(self._let_in_or_refused, one, before))
        return one.done()

    async def _let_in_or_refused(self, one: asyncio.Task[user_pb2.User], before: int) -> bool:
        return one.done() or self.users.in_flight > before

    async def close(self) -> None:
        await asyncio.gather(self._edge.close(), self._payment.close())

    async def waits_for(self, number: int) -> bool:
        """Tells whether that many wait."""
        return self.users.in_flight == number


@pytest.fixture
async def house(certificates: Path) -> AsyncIterator[House]:
    users = Users()
    async with serving([partial(user_pb2_grpc.add_UserServiceServicer_to_server, users)], certificates, "user") as port:
        house = House(users, port, certificates)
        yield house
        await house.close()


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_burst_waits_and_is_carried_out(house: House) -> None:
    async with house.asking(CROWD * 3 // 2) as asking:
        house.users.go_on.set()
        assert len(await asyncio.gather(*asking)) == CROWD * 3 // 2


async def test_of_a_queue_that_stays_the_rest_is_refused_at_once(house: House) -> None:
    async with house.crowded() as waiting:
        refused = await refusal(house.ask())
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(refused) == "OVERLOADED"
        assert detail(refused, error_details_pb2.RetryInfo()).retry_delay.ToMilliseconds() > 0
        assert int(trailers(refused)["retry-after"]) >= 1
        assert house.users.in_flight == waiting
    assert await house.ask() == user_pb2.User(id="me")


async def test_not_all_are_to_come_back_at_the_same_time(house: House) -> None:
    async with house.crowded():
        refused = [await refusal(house.ask()) for _ in range(50)]
        assert {str(trailers(one)["retry-after"]) for one in refused} >= {"1", "2", "3"}


async def test_what_other_services_ask_is_a_part_of_what_was_let_in(house: House) -> None:
    async with house.crowded() as waiting:
        inside = asyncio.create_task(house.ask_inside())
        await eventually(partial(house.waits_for, waiting + 1))
        house.users.go_on.set()
        await inside


async def test_there_is_an_end_to_that_too(house: House) -> None:
    async with house.asking(MOST, inside=True):
        assert reason(await refusal(house.ask_inside())) == "OVERLOADED"
        assert reason(await refusal(house.ask())) == "OVERLOADED"


async def test_health_answers_while_others_are_refused(house: House) -> None:
    health_server, servicer = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, health_server)
    port = health_server.add_insecure_port("127.0.0.1:0")
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await health_server.start()
    refused = 0

    async def flood() -> None:
        nonlocal refused
        while True:
            await refusal(house.ask())
            refused += 1

    async with house.crowded(), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        flooding = [asyncio.create_task(flood()) for _ in range(100)]
        stub = health_pb2_grpc.HealthStub(channel)
        while refused < 300:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for one in flooding:
            one.cancel()
        await asyncio.gather(*flooding, return_exceptions=True)
    await health_server.stop(None)


class Payments(payment_pb2_grpc.PaymentServiceServicer):
    """Streams that stay open, and calls that do not."""

    def __init__(self) -> None:
        self.open = 0

    async def WatchPayment(
        self, _: payment_pb2.WatchPaymentRequest, __: object
    ) -> AsyncIterator[payment_pb2.PaymentEvent]:
        self.open += 1
        yield payment_pb2.PaymentEvent()
        await asyncio.Event().wait()

    async def GetPayment(self, _: payment_pb2.GetPaymentRequest, __: object) -> payment_pb2.Payment:
        return payment_pb2.Payment()


async def test_streams_that_are_open_are_no_queue(certificates: Path) -> None:
    register = [partial(payment_pb2_grpc.add_PaymentServiceServicer_to_server, Payments())]
    async with serving(register, certificates, "payment") as port:
        edge = As(port, certificates, "payment")
        stub = payment_pb2_grpc.PaymentServiceStub(edge.user("usr_1", "customer"))
        streams = [stub.WatchPayment(payment_pb2.WatchPaymentRequest(payment_id="pay_1")) for _ in range(2 * CROWD)]
        await asyncio.gather(*(stream.read() for stream in streams))
        ended = asyncio.get_running_loop().time() + 2 * BURST_SECONDS
        while asyncio.get_running_loop().time() < ended:
            await stub.GetPayment(payment_pb2.GetPaymentRequest(payment_id="pay_1"))
        for stream in streams:
            stream.cancel()
        await edge.close()
