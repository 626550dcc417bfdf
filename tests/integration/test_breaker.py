"""What becomes of calls to a peer that is away, hangs, or comes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
from user.v1 import user_pb2, user_pb2_grpc

from services.runtime import caller, clients, deadline
from services.runtime.breaker import FAILURES_IN_A_ROW, OPEN_SECONDS, WINDOW_CALLS, Breaker, State
from services.runtime.caller import Caller
from services.runtime.errors import Unavailable
from services.runtime.status import UpstreamUnavailable
from tests.integration.serving import METHODS, identity, serving
from tests.waiting import eventually

LONGEST_OPEN_SECONDS = OPEN_SECONDS * 1.25


class Clock:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def failing(code: grpc.StatusCode) -> Callable[[float], Awaitable[None]]:
    async def fail(_: float) -> NoReturn:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())

    return fail


away, late = failing(grpc.StatusCode.UNAVAILABLE), failing(grpc.StatusCode.DEADLINE_EXCEEDED)


async def well(_: float) -> None:
    """As a peer answers that is there."""


async def fails(breaker: Breaker, make: Callable[[float], Awaitable[None]] = away, seconds: float = 5) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await breaker.call(make, seconds)


def state(breaker: Breaker) -> State:
    return breaker.state  # which mypy would take for what it was before


async def opened(clock: Clock) -> Breaker:
    breaker = Breaker("user", clock)
    for _ in range(FAILURES_IN_A_ROW):
        await fails(breaker)
    assert state(breaker) is State.OPEN
    return breaker


@pytest.mark.parametrize("make", [away, late])
async def test_after_some_failures_in_a_row_no_call_is_made(make: Callable[[float], Awaitable[None]]) -> None:
    breaker, made = Breaker("user"), []

    async def count(seconds: float) -> None:
        made.append(seconds)
        await make(seconds)

    for _ in range(FAILURES_IN_A_ROW):
        await fails(breaker, count)
    with pytest.raises(UpstreamUnavailable) as refused:
        await breaker.call(count, 5)
    assert refused.value.retry_after
    assert len(made) == FAILURES_IN_A_ROW


async def test_an_answer_in_between_keeps_it_closed() -> None:
    breaker = Breaker("user")
    for _ in range(FAILURES_IN_A_ROW - 1):
        await fails(breaker)
    await breaker.call(well, 5)
    await fails(breaker)
    assert state(breaker) is State.CLOSED


async def test_it_opens_when_most_of_many_fail() -> None:
    breaker = Breaker("user", Clock())
    for _ in range(WINDOW_CALLS // 3):
        await fails(breaker)
        await fails(breaker)
        await breaker.call(well, 5)
    assert state(breaker) is State.CLOSED
    await fails(breaker)
    await fails(breaker)
    assert state(breaker) is State.OPEN


async def test_failures_of_long_ago_do_not_count() -> None:
    clock = Clock()
    breaker = Breaker("user", clock)
    for _ in range(WINDOW_CALLS):
        await fails(breaker)
        await breaker.call(well, 5)
        clock.now += 5
    assert state(breaker) is State.CLOSED


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED])
async def test_a_refusal_by_the_peer_is_an_answer(code: grpc.StatusCode) -> None:
    breaker = Breaker("user")
    for _ in range(WINDOW_CALLS * 2):
        await fails(breaker, failing(code))
    assert state(breaker) is State.CLOSED


async def test_a_peer_that_had_no_time_is_not_to_blame() -> None:
    breaker = Breaker("user")
    for _ in range(FAILURES_IN_A_ROW):
        await fails(breaker, late, seconds=0.2)
    assert state(breaker) is State.CLOSED


async def test_after_a_while_one_call_at_a_time_is_made() -> None:
    clock = Clock()
    breaker = await opened(clock)
    clock.now += LONGEST_OPEN_SECONDS
    assert state(breaker) is State.HALF_OPEN
    go_on = asyncio.Event()
    probe = asyncio.create_task(breaker.call(lambda _: go_on.wait(), 5))
    await asyncio.sleep(0)
    with pytest.raises(UpstreamUnavailable):
        await breaker.call(well, 5)
    go_on.set()
    await probe
    assert state(breaker) is State.CLOSED


async def test_what_failed_before_it_was_open_does_not_count_when_it_is_closed_again() -> None:
    clock, peer_is_back = Clock(), asyncio.Event()
    breaker = Breaker("user", clock)

    async def hang(seconds: float) -> None:
        await peer_is_back.wait()
        await late(seconds)

    hanging = [asyncio.create_task(breaker.call(hang, 5)) for _ in range(2 * WINDOW_CALLS)]
    await asyncio.sleep(0)
    peer_is_back.set()
    await asyncio.gather(*hanging, return_exceptions=True)
    clock.now += LONGEST_OPEN_SECONDS
    for _ in range(WINDOW_CALLS + 1):
        await breaker.call(well, 5)
    await fails(breaker)
    assert state(breaker) is State.CLOSED


async def test_when_that_call_fails_it_stays_open_for_another_while() -> None:
    clock = Clock()
    breaker = await opened(clock)
    clock.now += LONGEST_OPEN_SECONDS
    await fails(breaker)
    assert state(breaker) is State.OPEN
    clock.now += LONGEST_OPEN_SECONDS
    await breaker.call(well, 5)
    assert state(breaker) is State.CLOSED
    for _ in range(FAILURES_IN_A_ROW - 1):
        await fails(breaker)
    assert state(breaker) is State.CLOSED


async def test_when_that_call_is_given_up_another_is_made() -> None:
    clock = Clock()
    breaker = await opened(clock)
    clock.now += LONGEST_OPEN_SECONDS
    probe = asyncio.create_task(breaker.call(lambda _: asyncio.Event().wait(), 5))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert state(breaker) is State.HALF_OPEN
    await breaker.call(well, 5)
    assert state(breaker) is State.CLOSED


class Busy(Unavailable):
    """As a peer says that is there, and cannot."""

    message = "Not now."


class Users(user_pb2_grpc.UserServiceServicer):
    """Answers as a test has it, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.behaviour: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)

    async def BatchGetUsers(self, _: user_pb2.BatchGetUsersRequest, __: object) -> user_pb2.BatchGetUsersResponse:
        self.asked += 1
        await self.behaviour()
        return user_pb2.BatchGetUsersResponse()


@asynccontextmanager
async def calling(users: Users, certificates: Path) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Yields what calls them, as payment does: within a deadline of a second and a half."""
    register = [partial(user_pb2_grpc.add_UserServiceServicer_to_server, users)]
    async with serving(register, certificates, "user") as port:
        channel = clients.connect("user", f"127.0.0.1:{port}", identity(certificates, "payment"), METHODS)
        stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(channel)

        async def call() -> object:
            caller.set_current(Caller())
            deadline.begin(1.5)
            return await stub.BatchGetUsers(user_pb2.BatchGetUsersRequest(user_ids=["usr_1"]))

        try:
            yield call
        finally:
            await channel.close()


async def test_every_channel_has_one(certificates: Path) -> None:
    users = Users()
    async with calling(users, certificates) as call:
        await call()
        users.behaviour = lambda: asyncio.sleep(60)
        hanging = await asyncio.gather(*(call() for _ in range(FAILURES_IN_A_ROW)), return_exceptions=True)
        assert {one.code() for one in hanging if isinstance(one, grpc.aio.AioRpcError)} == {
            grpc.StatusCode.DEADLINE_EXCEEDED
        }
        asked = users.asked
        with pytest.raises(UpstreamUnavailable):
            await call()
        assert users.asked == asked
        users.behaviour = lambda: asyncio.sleep(0)

        async def answered() -> bool:
            return await call() == user_pb2.BatchGetUsersResponse()

        await eventually(answered)


async def test_a_peer_that_refuses_everything_is_not_asked_three_times_each(certificates: Path) -> None:
    users = Users()

    async def refuse() -> NoReturn:
        raise Busy

    users.behaviour = refuse
    async with calling(users, certificates) as call:
        await asyncio.gather(*(call() for _ in range(100)), return_exceptions=True)
    assert 100 <= users.asked < 200
