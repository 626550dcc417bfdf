"""Settlement: moves the money of authorized payments when it is due, on any number of replicas."""

import asyncio
from datetime import UTC, datetime

import structlog

from services.payment.domain import Payment
from services.payment.store import Payments
from services.runtime import trace
from services.runtime.errors import Unavailable
from services.runtime.log import failure
from services.runtime.worker import repeat

BATCH = 20
AT_ONCE = 4
"""Of the ten connections that the process has."""
POLL_SECONDS = 0.2
ATTEMPTS = 10
"""How often a payment may fail to be settled before it is FAILED: that takes a minute."""

_log = structlog.get_logger()


class Settlement:
    """The worker. What it claimed and could not finish, for a crash or a fault, comes due again."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Settles, for ever."""
        async with asyncio.TaskGroup() as under_way:

            async def settle_due() -> bool:
                due = await self._payments.claim_due(BATCH)
                for payment_id in due:
                    await self._slots.acquire()
                    under_way.create_task(self._settle(payment_id))
                return len(due) == BATCH

            await repeat(settle_due, asyncio.Event(), POLL_SECONDS)

    async def _settle(self, payment_id: str) -> None:
        trace.begin(None)
        try:
            await self._try(payment_id)
        except Exception as error:  # the others must not wait for it
            _log.warning("settlement failed", payment=payment_id, **failure(error))
        finally:
            self._slots.release()

    async def _try(self, payment_id: str) -> None:
        try:
            await self._payments.settle(payment_id, datetime.now(UTC))
        except Unavailable:  # the database is away, which is not the payment's fault
            raise
        except Exception:
            if await self._payments.postpone(payment_id) >= ATTEMPTS:
                await self._payments.change(payment_id, _given_up)
            raise


def _given_up(payment: Payment) -> Payment:
    return payment.failed("SETTLEMENT_FAILED", datetime.now(UTC))
