"""Watching payments: one stream of changes, whichever protocol it leaves in.

The database is the truth; NATS only says when to look. Now and then watchers look unasked, for NATS may be away.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncGenerator

from services.payment.domain import Change, Payment
from services.payment.store import Payments
from services.runtime import deadline
from services.runtime.bus import Bus

HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 3.0
"""The longest delay of a change while NATS is away."""
ENDING_SECONDS = 2.0
"""How long before its deadline a stream ends, so that it is not cut."""


class Watch:
    """Wakes those who watch a payment when any replica changes it."""

    def __init__(self, payments: Payments, bus: Bus) -> None:
        self._payments = payments
        self._bus = bus
        self._watchers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._ended = False

    async def run(self) -> None:
        """Listens to the events of all replicas."""
        await self._bus.listen("payment.>", lambda subject, _: self._wake(subject.removeprefix("payment.")))

    def end(self) -> None:
        """Ends all streams, so that their clients go on elsewhere: the server is about to stop."""
        self._ended = True
        for payment_id in list(self._watchers):
            self._wake(payment_id)

    def _wake(self, payment_id: str) -> None:
        for watcher in self._watchers.get(payment_id, ()):
            watcher.set()

    async def changes(self, payment: Payment, after: int) -> AsyncGenerator[Change | None]:
        """Yields a payment's changes after a sequence until a terminal one, and None as a heartbeat."""
        wake = asyncio.Event()
        self._watchers[payment.id].add(wake)
        try:
            async for change in self._follow(payment, after, wake):
                yield change
        finally:
            self._watchers[payment.id].discard(wake)
            if not self._watchers[payment.id]:
                del self._watchers[payment.id]

    async def _follow(self, payment: Payment, after: int, wake: asyncio.Event) -> AsyncGenerator[Change | None]:
        loop = asyncio.get_running_loop()
        heartbeat = loop.time() + HEARTBEAT_SECONDS
        while True:
            wake.clear()
            changes = await self._payments.changes(payment, after)
            for change in changes:
                yield change
                after = change.sequence
            if (changes and changes[-1].state.terminal) or self._ended or _before_ending() <= 0:
                return
            if changes:
                heartbeat = loop.time() + HEARTBEAT_SECONDS
            elif loop.time() >= heartbeat:
                yield None
                heartbeat = loop.time() + HEARTBEAT_SECONDS
            await _woken(wake, min(LOOK_SECONDS, heartbeat - loop.time(), _before_ending()))


def _before_ending() -> float:
    remaining = deadline.remaining()
    return math.inf if remaining is None else remaining - ENDING_SECONDS


async def _woken(wake: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await wake.wait()
    except TimeoutError:
        pass
