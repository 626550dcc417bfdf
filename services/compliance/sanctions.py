"""The sanctions list in force: loaded into the database when its file is new, and searched in memory."""

import asyncio
import hashlib
from pathlib import Path

import structlog

from services.compliance import sdn
from services.compliance.domain import Listed
from services.compliance.store import SanctionsList
from services.compliance.watchlist import Watchlist
from services.runtime.errors import Unavailable
from services.runtime.worker import repeat

POLL_SECONDS = 30.0
"""How soon all replicas go by the list that one has loaded."""

_log = structlog.get_logger()


class SanctionsListNotLoaded(Unavailable):
    """The service has just started: nobody can be screened yet."""

    message = "The sanctions list is being loaded."


class Sanctions:
    """Who is on the list."""

    def __init__(self, path: Path, stored: SanctionsList, poll_seconds: float = POLL_SECONDS) -> None:
        self._path = path
        self._stored = stored
        self._poll_seconds = poll_seconds
        self._watchlist: Watchlist | None = None
        self._sha256: bytes | None = None

    async def follow(self) -> None:
        """Loads the file, then keeps to what is in the database, for ever."""
        await repeat(self._refresh, asyncio.Event(), self._poll_seconds)

    async def check(self) -> None:
        """Raises SanctionsListNotLoaded until there is a list."""
        self.match("")

    def match(self, name: str) -> Listed | None:
        """Returns the entry that a name stands for, None where there is none. Raises SanctionsListNotLoaded."""
        if self._watchlist is None:
            raise SanctionsListNotLoaded
        return self._watchlist.match(name)

    async def _refresh(self) -> bool:
        in_force = await self._stored.sha256()
        if in_force is None or self._watchlist is None:
            in_force = await self._load_file(in_force)
        if in_force != self._sha256:
            entries = await self._stored.entries()
            self._watchlist = await asyncio.to_thread(Watchlist, entries)
            self._sha256 = in_force
            _log.info("sanctions list", entries=len(entries), sha256=in_force.hex())
        return False

    async def _load_file(self, in_force: bytes | None) -> bytes:
        """Puts the file's list in force, unless it is. Returns its hash."""
        content = await asyncio.to_thread(self._path.read_bytes)
        sha256 = hashlib.sha256(content).digest()
        if sha256 != in_force:
            await self._stored.replace(sha256, await asyncio.to_thread(sdn.read, content))
        return sha256
