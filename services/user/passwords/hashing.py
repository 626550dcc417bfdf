"""Passwords: hashed with Argon2id in threads of their own, so that hashing holds up nothing else.

The parameters are the first that OWASP's Password Storage Cheat Sheet recommends: a quarter of the time and memory of
RFC 9106's second choice, which would let a core check only eight log-ins a second.
"""

import asyncio
import os
import secrets
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

MEMORY_KIB = 19 * 1024
PASSES = 2
LANES = 1


class Passwords:
    """Hashes passwords and checks them, at most one per core at once: each takes 19 MiB and all of a core."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="argon2")
        self._nobodys = self._hasher.hash(secrets.token_hex())

    async def hash(self, password: str) -> str:
        """Returns the hash to store, with its parameters and salt."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, password)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Tells whether this is the password. Takes as long where there is no hash, so that timing names no user."""
        verified = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._verify, password_hash or self._nobodys, password
        )
        return verified and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Tells whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False
