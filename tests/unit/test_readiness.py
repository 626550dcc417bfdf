"""Checks of readiness that need to pass only once."""

import pytest

from services.runtime.server import once


async def test_what_passed_once_is_not_asked_again() -> None:
    asked = 0
    failing = True

    async def check() -> None:
        nonlocal asked
        asked += 1
        if failing:
            raise ConnectionError

    passes = once(check)
    with pytest.raises(ConnectionError):
        await passes()
    failing = False
    await passes()
    failing = True
    await passes()

    assert asked == 2
