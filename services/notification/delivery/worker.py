"""The worker that sends deliveries.

At least once: one that is killed between sending and writing that down sends again, under the same id, when the
lease has ended.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

import structlog

from services.notification.delivery import domain
from services.notification.delivery.domain import (
    CHANNELS,
    EMAIL,
    LONGEST_BACKOFF_SECONDS,
    PUSH,
    SMS,
    WEBHOOK,
    Delivery,
    Outcome,
    TryAgain,
    Unsent,
)
from services.notification.delivery.store import Deliveries
from services.runtime import caller, trace
from services.runtime.caller import Caller
from services.runtime.errors import Unavailable
from services.runtime.log import failure
from services.runtime.worker import backoff, repeat

POLL_SECONDS = 1.0
"""How soon another replica sends what one was told of that crashed, and what is due again."""
SEND_SECONDS = 10.0
SLOW_SECONDS = 2.0
DRAIN_SECONDS = 5.0
"""How long attempts that have begun may still take when the worker is stopped."""
AT_ONCE = 200
AT_ONCE_TO = dict.fromkeys((EMAIL, SMS, PUSH), 16)
AT_ONCE_TO_A_WEBHOOK = 4
"""To one whose last attempt failed or was slow, one."""
AT_ONCE_TO_SUCH = AT_ONCE // 2
"""To all of those together: receivers that hang leave room for those that do not."""
REMEMBERED_SECONDS = 2 * LONGEST_BACKOFF_SECONDS
"""For how long after it a webhook is known to have failed, in case that nothing is posted to it any more."""

_log = structlog.get_logger()


class Channel(Protocol):
    """A way to reach users."""

    async def send(self, delivery: Delivery) -> int:
        """Sends, and returns the HTTP status of the answer; 0 where the channel has none.

        Raises Refused where another attempt is pointless. After anything else it is tried again; TryAgain is the one
        that says what is written down, of others that is only the name.
        """


class Worker:
    """Sends what is due. Any number of replicas share the work."""

    def __init__(self, deliveries: Deliveries, channels: Mapping[str, Channel]) -> None:
        self._deliveries = deliveries
        self._channels = channels
        self._running: dict[str, asyncio.Task[None]] = {}
        self._in_flight: Counter[str] = Counter()
        self._narrow: dict[str, float] = {}
        """Webhooks whose last attempt failed or was slow, and when it ended."""
        self._more: set[str] = set()
        """Targets that have more to do than there was room for, as far as can be seen."""
        self._all_taken = False

    async def run(self) -> None:
        """Sends, for ever. When it is cancelled, what has begun may end."""
        caller.set_current(Caller())  # nobody's request
        off = [channel for channel in CHANNELS if channel not in self._channels]
        _log.info("channels", on=sorted(self._channels), off=off)
        try:
            await repeat(self._start_due, self._deliveries.added, POLL_SECONDS)
        finally:
            if self._running:
                await asyncio.wait(self._running.values(), timeout=DRAIN_SECONDS)
            for task in self._running.values():
                task.cancel()

    async def _start_due(self) -> bool:
        self._in_flight = +self._in_flight  # without those that are through
        limit = AT_ONCE - len(self._running)
        if limit <= 0:
            return False
        room = self._rooms()
        claimed = await self._deliveries.claim(limit, AT_ONCE_TO_A_WEBHOOK, room, self._running)
        counts = Counter(delivery.target for delivery in claimed)
        filled = {target for target, count in counts.items() if count >= room.get(target, AT_ONCE_TO_A_WEBHOOK)}
        full = {target for target, left in room.items() if left <= 0}
        self._more, self._all_taken = filled | full, len(claimed) == limit
        for delivery in claimed:
            self._in_flight[delivery.target] += 1
            self._running[delivery.id] = asyncio.create_task(self._deliver(delivery))
        return False

    def _rooms(self) -> dict[str, int]:
        """Returns how many may be started now to each target that something is known of."""
        forgotten = time.monotonic() - REMEMBERED_SECONDS
        self._narrow = {target: when for target, when in self._narrow.items() if when > forgotten}
        targets = {*AT_ONCE_TO, *self._in_flight, *self._narrow}
        room = {target: max(0, self._width(target) - self._in_flight[target]) for target in targets}
        idle = [target for target in self._narrow if room[target]]
        left = max(0, AT_ONCE_TO_SUCH - sum(self._in_flight[target] for target in self._narrow))
        not_now = random.sample(idle, max(0, len(idle) - left))
        return room | dict.fromkeys(not_now, 0)

    def _width(self, target: str) -> int:
        return 1 if target in self._narrow else AT_ONCE_TO.get(target, AT_ONCE_TO_A_WEBHOOK)

    async def _deliver(self, delivery: Delivery) -> None:
        trace.begin(None)
        target = delivery.target
        try:
            started = time.monotonic()
            outcome = await self._attempt(delivery)
            seconds = time.monotonic() - started
            if target not in AT_ONCE_TO and (outcome.state == "PENDING" or seconds > SLOW_SECONDS):
                self._narrow[target] = time.monotonic()
            else:
                self._narrow.pop(target, None)
            await self._record(delivery, outcome)
            told = {"error": outcome.error} if outcome.error else {}
            _log.info(
                "delivery",
                delivery=delivery.id,
                channel=delivery.channel,
                event_id=delivery.event_id,
                attempts=delivery.attempts,
                outcome=outcome.state,
                ms=round(seconds * 1000, 2),
                **told,
            )
        finally:
            del self._running[delivery.id]
            self._in_flight[target] -= 1
            if self._all_taken or (target in self._more and 2 * self._in_flight[target] <= self._width(target)):
                self._deliveries.added.set()  # not each time: several are claimed at once

    async def _attempt(self, delivery: Delivery) -> Outcome:
        try:
            channel = self._channels.get(delivery.channel)
            if channel is None:
                raise TryAgain("the channel is switched off")
            async with asyncio.timeout(SEND_SECONDS):
                return domain.delivered(await channel.send(delivery))
        except Unsent as error:
            return domain.failed(delivery, error, datetime.now(UTC))
        except TimeoutError:
            return domain.failed(delivery, TryAgain(f"no answer within {SEND_SECONDS:.0f} s"), datetime.now(UTC))
        except Exception as error:  # whatever a channel stumbles over; its text may name an address
            name = type(error).__name__
            _log.warning("delivery stumbled", delivery=delivery.id, error=name)
            seen = "a fault on our side" if delivery.channel == WEBHOOK else name  # webhooks' owners read their log
            return domain.failed(delivery, TryAgain(seen), datetime.now(UTC))

    async def _record(self, delivery: Delivery, outcome: Outcome) -> None:
        """Writes down what became of an attempt, however long Postgres is away: what is forgotten is sent again."""
        failures = 0
        while True:
            try:
                await self._deliveries.record(delivery, outcome)
            except Unavailable as error:
                failures += 1
                _log.warning("delivery not recorded", delivery=delivery.id, **failure(error))
                await asyncio.sleep(backoff(failures))
            else:
                return
