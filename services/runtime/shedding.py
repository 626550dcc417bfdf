"""What becomes of more calls than can be carried out: a burst waits a moment, and of a queue that stays the rest is
refused at once, so that what was let in is done in time.
"""

import random
import time
from collections.abc import Callable

import structlog
from google.protobuf.message import Message

from services.runtime.contract import EDGE
from services.runtime.errors import Unavailable
from services.runtime.interceptors import Call, Proceed
from services.runtime.peers import peer_name

CROWD = 256
"""Unary calls at once that are a queue: with a core and ten connections to Postgres, most of them only wait."""
MOST = 1000
"""Unary calls at once that fit in memory, whoever makes them."""
BURST_SECONDS = 2.0
"""How long a queue may be there before calls are refused."""

_log = structlog.get_logger()


class Overloaded(Unavailable):
    """There is more to do than can be done: this was not even begun."""

    message = "There is more to do than can be done right now. Nothing was begun; try again a little later."

    def __init__(self) -> None:
        super().__init__()
        self.retry_after = random.uniform(0.5, 3.5)  # noqa: S311  # not all clients at once


class Shedding:
    """The unary calls that a server has in hand. (Streams are many, and have limits of their own.)

    Calls of other services are a part of what has been let in already, and so are refused last.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._crowded_since: float | None = None
        self._refused = 0

    async def layer(self, call: Call, proceed: Proceed) -> Message | None:
        """Carries a call out, or raises Overloaded."""
        if call.method.server_streaming or call.method.client_streaming:
            return await proceed(call)
        if self._in_flight >= CROWD:
            self._require_room(call)
        self._in_flight += 1
        try:
            return await proceed(call)
        finally:
            self._in_flight -= 1
            if self._crowded_since is not None and self._in_flight < CROWD // 2:
                self._calm_down()

    def _require_room(self, call: Call) -> None:
        now = self._clock()
        if self._crowded_since is None:
            self._crowded_since = now
        stays = now - self._crowded_since > BURST_SECONDS
        if self._in_flight >= MOST or (stays and peer_name(call.context) == EDGE):
            if not self._refused:
                _log.warning("overloaded", in_flight=self._in_flight)
            self._refused += 1
            raise Overloaded

    def _calm_down(self) -> None:
        self._crowded_since = None
        if self._refused:
            _log.warning("no longer overloaded", refused=self._refused)
            self._refused = 0
