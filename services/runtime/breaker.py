"""A circuit breaker: what calls a peer that does not answer gives up at once, until the peer answers again."""

import random
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TypeVar

import grpc
import structlog

from services.runtime.status import UpstreamUnavailable

FAILURES_IN_A_ROW = 5
WINDOW_SECONDS = 10.0
WINDOW_CALLS = 20
"""As few calls say nothing of how often they fail."""
OPEN_SECONDS = 0.75
"""How long nobody is let through after a failure: about as long as clients are told to wait."""
FAIR_SECONDS = 1.0
"""A peer that had less time than this is not to blame for being late."""

Answer = TypeVar("Answer")

_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

_log = structlog.get_logger()


class State(Enum):
    """What becomes of a call."""

    CLOSED = "closed"
    """It is made."""
    OPEN = "open"
    """It is refused."""
    HALF_OPEN = "half open"
    """One is made at a time, to see how it goes."""


class Breaker:
    """Of one peer. It opens when the peer was away for some calls in a row, or for more than half of many.

    That the peer was reached and refused what was asked is an answer like any other, unless it has too much to do.
    """

    def __init__(self, peer: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._peer = peer
        self._clock = clock
        self._open_until: float | None = None
        self._probing = False
        self._in_a_row = 0
        self._calls = self._failures = 0
        self._window_end = 0.0

    @property
    def state(self) -> State:
        """What would become of a call now."""
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if self._probing or self._clock() < self._open_until else State.HALF_OPEN

    async def call(self, make: Callable[[float], Awaitable[Answer]], seconds: float) -> Answer:
        """Makes a call that may take so long. Raises UpstreamUnavailable where none is to be made.

        A call that is given up by who made it says nothing of the peer, and neither does one that had little time.
        """
        probe = self._open_until is not None
        if probe:
            if self.state is State.OPEN:
                raise UpstreamUnavailable
            self._probing = True
        try:
            answer = await make(seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AWAY:
                self._answered(probe=probe)
            elif error.code() is grpc.StatusCode.UNAVAILABLE or seconds >= FAIR_SECONDS:
                self._failed(probe=probe)
            raise
        else:
            self._answered(probe=probe)
            return answer
        finally:
            if probe:
                self._probing = False

    def _answered(self, *, probe: bool) -> None:
        self._in_a_row = 0
        self._count(failures=0)
        if probe:
            _log.warning("breaker closed", peer=self._peer)
            self._open_until, self._calls, self._failures = None, 0, 0

    def _failed(self, *, probe: bool) -> None:
        self._in_a_row += 1
        self._count(failures=1)
        most_fail = self._calls >= WINDOW_CALLS and self._failures * 2 > self._calls
        if probe or (self._open_until is None and (self._in_a_row >= FAILURES_IN_A_ROW or most_fail)):
            if not probe:
                _log.warning("breaker open", peer=self._peer, failures=self._failures, calls=self._calls)
            self._open_until = self._clock() + OPEN_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311

    def _count(self, failures: int) -> None:
        if self._clock() >= self._window_end:
            self._window_end, self._calls, self._failures = self._clock() + WINDOW_SECONDS, 0, 0
        self._calls += 1
        self._failures += failures
