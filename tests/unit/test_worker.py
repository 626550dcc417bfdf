"""Workers outlive every failure."""

import asyncio

import pytest

from services.runtime import worker


async def test_a_worker_goes_on_after_any_number_of_failures() -> None:
    failures, done = 0, asyncio.Event()

    async def step() -> bool:
        nonlocal failures
        failures += 1
        if failures < 5:
            raise ConnectionError("away")
        done.set()
        return False

    running = asyncio.create_task(worker.repeat(step, asyncio.Event(), every=60))
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()


@pytest.mark.parametrize("outcome", [None, ConnectionError("away")])
async def test_a_worker_ends_whatever_its_step_makes_of_being_cancelled(outcome: Exception | None) -> None:
    under_way = asyncio.Event()

    async def step() -> bool:
        under_way.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if outcome:
                raise outcome from None
        return False

    running = asyncio.create_task(worker.repeat(step, asyncio.Event(), every=60))
    async with asyncio.timeout(10):
        await under_way.wait()
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()


def test_the_wait_between_failures_grows_to_its_limit_and_no_further() -> None:
    waits = [worker.backoff(failures) for failures in (1, 2, 3, 100, 10_000)]
    assert waits == sorted(waits)
    assert waits[-1] == worker.LONGEST_BACKOFF_SECONDS


async def test_a_worker_is_woken_before_its_time() -> None:
    steps, wake, once, twice = 0, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def step() -> bool:
        nonlocal steps
        steps += 1
        (once if steps == 1 else twice).set()
        return False

    running = asyncio.create_task(worker.repeat(step, wake, every=60))
    async with asyncio.timeout(10):
        await once.wait()
        wake.set()
        await twice.wait()
    running.cancel()
