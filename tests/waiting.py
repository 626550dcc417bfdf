"""Waiting for a condition, where others would sleep and hope."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from services.runtime.errors import Unavailable


def wait_until(condition: Callable[[], bool], otherwise: str, seconds: float = 30.0) -> None:
    """Waits for a condition. Raises TimeoutError saying what is wrong otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.05)


async def eventually(condition: Callable[[], Awaitable[object]], seconds: float = 10.0) -> None:
    """Waits until a condition holds; while it raises Unavailable it does not. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await _holds(condition):  # noqa: ASYNC110  # what is waited for sets no event here
            await asyncio.sleep(0.01)


async def _holds(condition: Callable[[], Awaitable[object]]) -> bool:
    try:
        return bool(await condition())
    except Unavailable:
        return False
