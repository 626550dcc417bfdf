"""Settlement: moves the money of authorized payments when it is due, on any number of replicas."""

import asyncio
from datetime import UTC, datetime

import structlog

from services.payment.store import Payments
from services.runtime import trace
from services.runtime.log import failure
from services.runtime.worker import repeat

BATCH = 20
POLL_SECONDS = 0.2

_log = structlog.get_logger()


class Settlement:
    """The worker. What it claimed and could not finish, for a crash or a fault, comes due again."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    async def run(self) -> None:
        """Settles, for ever."""
        await repeat(self._settle_due, asyncio.Event(), POLL_SECONDS)

    async def _settle_due(self) -> bool:
        due = await self._payments.claim_due(BATCH)
        for payment_id in due:
            trace.begin(None)
            try:
                await self._payments.settle(payment_id, datetime.now(UTC))
            except Exception as error:  # the others must not wait for it
                _log.warning("settlement failed", payment=payment_id, **failure(error))
        return len(due) == BATCH
