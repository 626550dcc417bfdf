"""Waiting for a condition, where others would sleep and hope."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], otherwise: str, seconds: float = 30.0) -> None:
    """Waits for a condition. Raises TimeoutError saying what is wrong otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.05)
