"""Guessing is made slow: who fails too often waits, before anything is computed for them.

An attempt counts as failed until it has succeeded, so that many at once do not pass. Those of one account take turns
in each process: who logs in many times at once with the right password need not wait.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from services.user.passwords import domain
from services.user.passwords.domain import RESETS_PER_WINDOW, Limits, TooManyAttempts
from services.user.passwords.store import Attempts


class Throttle:
    """Says who may try."""

    def __init__(self, attempts: Attempts, limits: Limits) -> None:
        self._attempts = attempts
        self._waits = limits.waits
        self._per_address = limits.failures_per_address
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._trying: set[bytes] = set()
        """Accounts whose turn somebody has: what is counted of these may be a log-in that will succeed."""

    @asynccontextmanager
    async def attempt(self, account: bytes, address: str) -> AsyncIterator[None]:
        """Lets somebody try a password: raising says that it is the wrong one. Raises TooManyAttempts."""
        origin = domain.origin(address)
        tried = account in self._trying
        wait = await self._attempts.wait(account, origin, self._per_address)
        if wait > 0 and not tried and account not in self._trying:
            raise TooManyAttempts(wait)  # a flood of guesses costs no more than this
        async with self._turns.setdefault(account, asyncio.Lock()):
            self._trying.add(account)
            try:
                await self._count(origin)
                if not await self._attempts.count_failure(account, self._waits):
                    await self._attempts.forgive(b"", origin)  # nothing was checked
                    raise TooManyAttempts(await self._attempts.wait(account, origin, self._per_address))
                yield
                await self._attempts.forgive(account, origin)
            finally:
                self._trying.remove(account)

    @asynccontextmanager
    async def attempt_from(self, address: str) -> AsyncIterator[None]:
        """Does the same where only the address counts."""
        origin = domain.origin(address)
        await self._count(origin)
        yield
        await self._attempts.forgive(b"", origin)

    async def may_mail(self, email: str, address: str) -> bool:
        """Tells whether another code may be mailed to somebody. Raises TooManyAttempts for the address."""
        await self._count(domain.origin(address))
        return await self._attempts.count(domain.resets_of(email), RESETS_PER_WINDOW)

    async def _count(self, origin: bytes) -> None:
        if not await self._attempts.count(origin, self._per_address):
            raise TooManyAttempts(await self._attempts.wait(b"", origin, self._per_address))
