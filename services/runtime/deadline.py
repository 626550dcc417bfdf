"""How long the RPC being served may still take."""

import asyncio
from contextvars import ContextVar

_at: ContextVar[float | None] = ContextVar("deadline", default=None)


def begin(seconds: float) -> None:
    """Sets the deadline of the current call."""
    _at.set(asyncio.get_running_loop().time() + seconds)


def remaining() -> float | None:
    """Returns the seconds left, less than zero when they are over; None where nothing is being served."""
    at = _at.get()
    return None if at is None else at - asyncio.get_running_loop().time()
