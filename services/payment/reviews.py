"""Reviews that nobody ends: declines their payments when the time is up, on any number of replicas."""

import asyncio
from datetime import UTC, datetime

import structlog

from services.payment.domain import IllegalTransition, Payment
from services.payment.store import Payments
from services.runtime import trace
from services.runtime.errors import Unavailable
from services.runtime.log import failure
from services.runtime.worker import repeat

BATCH = 100
POLL_SECONDS = 1.0

_log = structlog.get_logger()


class Reviews:
    """The worker."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    async def run(self) -> None:
        """Declines, for ever."""
        await repeat(self._decline_expired, asyncio.Event(), POLL_SECONDS)

    async def _decline_expired(self) -> bool:
        for payment_id in await self._payments.expired(BATCH):
            trace.begin(None)
            try:
                await self._payments.change(payment_id, _expired)
            except IllegalTransition:  # another replica, or somebody decided in the last moment
                continue
            except Unavailable:  # for the others, too
                raise
            except Exception as error:  # the others must not wait for it
                _log.warning("review not ended", payment=payment_id, **failure(error))
        return False


def _expired(payment: Payment) -> Payment:
    return payment.expired(datetime.now(UTC))
