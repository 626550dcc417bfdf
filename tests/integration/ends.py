"""Whoever hears of ends of sessions, for tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from services.runtime.bus import MESSAGE_ID, SESSION, Bus
from services.runtime.ids import new_id
from services.runtime.revocations import Revocations, SessionEnded
from tests.waiting import eventually


async def end(bus: Bus, session_id: str) -> None:
    """Publishes the end of a session, as soon as NATS is there."""

    async def published() -> bool:
        await bus.publish(SESSION, f"{SESSION}.{session_id}", b"", {MESSAGE_ID: f"{SESSION}.{session_id}.1"})
        return True

    await eventually(published, 30)


@asynccontextmanager
async def following(bus: Bus) -> AsyncIterator[Revocations]:
    """Somebody who hears of ends meanwhile."""
    follower = Revocations(bus)
    running = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def has_ended(follower: Revocations, session_id: str) -> bool:
    try:
        follower.require_open(session_id)
    except SessionEnded:
        return True
    return False


async def heard(follower: Revocations, *session_ids: str) -> None:
    """Waits until the sessions are known to have ended."""
    for session_id in session_ids:
        await eventually(partial(has_ended, follower, session_id), 20)


async def heard_of(follower: Revocations, bus: Bus) -> None:
    """Waits until the follower is under way."""
    ready = new_id("ses")
    await end(bus, ready)
    await heard(follower, ready)
