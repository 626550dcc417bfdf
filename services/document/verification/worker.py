"""The worker: reads what is due, asks who its owner is, and decides; on any number of replicas."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

import structlog

from services.document.domain import IDENTITY_KINDS, Inspection
from services.document.verification.domain import ATTEMPTS, Facts, Identity, IdentityRefused
from services.document.verification.store import LEASE, Claim, Verifications
from services.runtime import caller, trace
from services.runtime.caller import Caller
from services.runtime.errors import DeadlineExceeded, Unavailable
from services.runtime.log import failure
from services.runtime.worker import backoff, repeat

AT_ONCE = 2
"""How many documents a process reads at once: each takes a core."""
POLL_SECONDS = 1.0
"""How soon what came due without a word is found."""
RENEW_SECONDS = LEASE.total_seconds() / 3
LONGEST_SECONDS = 120.0
"""What takes longer hangs. The inspector is less patient; this is for those it waits for."""
AWAY = timedelta(seconds=2)
"""When what could not be read for something that is away is tried again."""
REFUSED = timedelta(minutes=1)
"""When what could not be read for its owner is tried again."""

_log = structlog.get_logger()


class Inspector(Protocol):
    """What opens files, and reads them."""

    async def inspect(self, document_id: str, content_type: str, *, read: bool) -> Inspection:
        """Opens a document's file, and looks for a machine-readable zone if it is to be read."""


class Identities(Protocol):
    """Who knows who users are."""

    async def identity(self, user_id: str) -> Identity:
        """Returns who a user is. Raises Unavailable, NotFound, and IdentityRefused."""


class Verification:
    """The worker. What it claimed and could not finish, for a crash or a fault, comes due again."""

    def __init__(self, verifications: Verifications, inspector: Inspector, identities: Identities) -> None:
        self._verifications = verifications
        self._inspector = inspector
        self._identities = identities
        self._free = asyncio.Semaphore(AT_ONCE)
        self._away = 0
        """How often in a row something that is needed was away."""

    async def run(self) -> None:
        """Reads documents, for ever."""
        async with asyncio.TaskGroup() as under_way:

            async def begin_next() -> bool:
                await self._free.acquire()
                claim = None
                try:
                    if self._away:
                        await asyncio.sleep(backoff(self._away))  # or all that is due would fail, again and again
                    claim = await self._verifications.claim()
                finally:
                    if claim is None:
                        self._free.release()
                if claim is not None:
                    under_way.create_task(self._verify(claim)).add_done_callback(lambda _: self._free.release())
                return claim is not None

            await repeat(begin_next, self._verifications.due, POLL_SECONDS)

    async def _verify(self, claim: Claim) -> None:
        trace.begin(None)
        caller.set_current(Caller())  # nobody's request
        try:
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    facts = await self._find_out_undisturbed(claim)
                await self._verifications.decide(claim, facts)
                self._away = 0
            except asyncio.CancelledError:  # another replica need not wait
                with suppress(Unavailable):
                    await self._verifications.postpone(claim, timedelta(0), its_fault=False)
                raise
            except (Unavailable, DeadlineExceeded) as error:
                self._away += 1
                _log.warning("document cannot be read yet", document=claim.document.id, **failure(error))
                await self._verifications.postpone(claim, AWAY, its_fault=False)
            except IdentityRefused as error:  # which is neither the document's fault nor the others'
                _log.warning("document cannot be read yet", document=claim.document.id, **failure(error))
                await self._verifications.postpone(claim, REFUSED, its_fault=False)
            except Exception as error:
                _log.warning("reading failed", document=claim.document.id, attempts=claim.attempts, **failure(error))
                await self._verifications.postpone(claim, _backoff(claim.attempts), its_fault=True)
        except Exception as error:  # the others must not wait for it, and it comes due again
            _log.warning("document not postponed", document=claim.document.id, **failure(error))

    async def _find_out_undisturbed(self, claim: Claim) -> Facts:
        renewing = asyncio.create_task(repeat(partial(self._renew, claim), asyncio.Event(), RENEW_SECONDS))
        try:
            return await self._find_out(claim)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)  # or it might undo what becomes of the claim

    async def _renew(self, claim: Claim) -> bool:
        await self._verifications.renew(claim)
        return False

    async def _find_out(self, claim: Claim) -> Facts:
        document = claim.document
        facts = Facts(
            kind=document.kind,
            content_type=document.file.content_type,
            today=datetime.now(UTC).date(),
            given_up=claim.attempts > ATTEMPTS,
        )
        if facts.given_up:
            return facts
        proves_identity = document.kind in IDENTITY_KINDS
        if proves_identity:  # first: it is cheaper to learn that somebody is away
            facts = replace(facts, identity=await self._identities.identity(document.owner_id))
        inspection = await self._inspector.inspect(document.id, facts.content_type, read=proves_identity)
        return replace(facts, inspection=inspection)


def _backoff(attempts: int) -> timedelta:
    """2, 8, 32, 128 and 512 seconds: eleven minutes, in which a fault that is not the document's may be mended."""
    return timedelta(seconds=4**attempts / 2)
