"""Kills at random: every process of a stack in turn, one soon after the other, some while others still start."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from scripts.stack import supervision
from scripts.stack.settings import SERVERS
from tests.edge.stack import Stack
from tests.faults.log import CHANCE
from tests.waiting import wait_until

PROCESSES = ("envoy", *SERVERS, "postgres", "nats")
LONGEST_PAUSE_SECONDS = 2.0
RECOVERY_SECONDS = 60


class Storm:
    """What was killed, and how often."""

    def __init__(self, stack: Stack) -> None:
        self.kills: Counter[str] = Counter()
        self._stack = stack

    def rage(self, kills: int, after_each: Callable[[], None]) -> None:
        """Kills that often, each process as often as any other. Leaves a stack whose processes are ready."""
        for name, _ in zip(_endless_deck(), range(kills), strict=False):
            wait_until(partial(self._kill, name), f"{name} was not started again", RECOVERY_SECONDS)
            self.kills[name] += 1
            after_each()
            if CHANCE.random() < 0.5:
                self.calm_down()
            time.sleep(CHANCE.uniform(0, LONGEST_PAUSE_SECONDS))
        self.calm_down()

    def calm_down(self) -> None:
        """Waits until all processes are ready."""
        for name in PROCESSES:
            wait_until(partial(self._stack.is_ready, name), f"{name} is not ready", RECOVERY_SECONDS)

    def _kill(self, name: str) -> bool:
        """Kills a process, if it runs."""
        found = supervision.status(self._stack.settings.folder)
        pids = [one["pid"] for one in found if one["name"] == name and one["statename"] == "RUNNING"]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)


def _endless_deck() -> Iterator[str]:
    """Yields the processes' names for ever, shuffled anew after each has come."""
    deck = list(PROCESSES)
    while True:
        CHANCE.shuffle(deck)
        yield from deck
