"""Work that goes on beside the requests: in a loop, through failures, woken when there is something to do."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.runtime.log import failure

LONGEST_BACKOFF_SECONDS = 2.0

_log = structlog.get_logger()


async def repeat(step: Callable[[], Awaitable[bool]], wake: asyncio.Event, every: float) -> None:
    """Runs `step` while it returns True (there may be more), then waits for `wake` or `every` seconds.

    A failing step is logged and tried again with backoff: stores come back. It ends when it is cancelled.
    """
    name = getattr(step, "__qualname__", repr(step))
    failures = 0
    while True:
        wake.clear()
        try:
            more = await step()
            failures = 0
        except Exception as error:  # a worker outlives every failure
            failures += 1
            _log.warning("worker failed", worker=name, failures=failures, **failure(error))
            more = True
        _end_if_cancelled()
        if failures:
            await asyncio.sleep(backoff(failures))
        elif not more:
            await _woken(wake, every)


def backoff(failures: int) -> float:
    """Returns how many seconds to wait after so many failures in a row."""
    return min(0.1 * float(2 ** min(failures, 10)), LONGEST_BACKOFF_SECONDS)  # no float holds 2**1024


def _end_if_cancelled() -> None:
    """Makes good for steps that take no notice of a cancellation: nats-py drops one in the middle of flushing, say."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _woken(wake: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass
