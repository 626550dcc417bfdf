"""The settlement worker with a store that does as it is told."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from services.payment.domain import Payment, State
from services.payment.ledger.domain import Money
from services.payment.settlement import AT_ONCE, ATTEMPTS, Settlement
from services.payment.store import Payments, Step
from services.runtime.postgres import DatabaseUnavailable
from tests.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakePayments(Payments):
    """Payments that come due once each, and again after each failure."""

    def __init__(self, *due: str, faults: dict[str, Exception] | None = None) -> None:
        self.due = list(due)
        self.faults = faults or {}
        self.settled: list[str] = []
        self.failures: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.given_up: list[Payment] = []
        self.going_on = asyncio.Event()
        self.going_on.set()
        self.under_way = 0
        self.most_under_way = 0

    async def claim_due(self, limit: int) -> list[str]:
        claimed, self.due = self.due[:limit], self.due[limit:]
        return claimed

    async def settle(self, payment_id: str, now: datetime) -> None:
        self.attempts[payment_id] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if payment_id == "slow":
                await self.going_on.wait()
            await asyncio.sleep(0)
            if payment_id in self.faults:
                raise self.faults[payment_id].with_traceback(None)  # or it would grow with each attempt, and so the log
            self.settled.append(payment_id)
        finally:
            self.under_way -= 1

    async def postpone(self, payment_id: str) -> int:
        self.failures[payment_id] += 1
        self.due.append(payment_id)
        return self.failures[payment_id]

    async def change(self, payment_id: str, step: Step) -> Payment:
        self.due.remove(payment_id)
        euros = Money("EUR", 1)
        authorized = Payment(
            payment_id, "usr_1", "usr_2", "acc_1", "acc_2", euros, "", "", State.AUTHORIZED, "", 0, 1, NOW, NOW
        )
        self.given_up.append(step(authorized))
        return self.given_up[-1]


async def settling(payments: FakePayments, done: Callable[[], object]) -> None:
    """Settles until this is done."""
    worker = asyncio.create_task(Settlement(payments).run())

    async def holds() -> bool:
        return bool(done())

    try:
        await eventually(holds)
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def test_several_are_settled_at_once_but_not_all() -> None:
    payments = FakePayments(*(f"pay_{number}" for number in range(100)))
    await settling(payments, lambda: len(payments.settled) == 100)
    assert payments.most_under_way == AT_ONCE


async def test_a_slow_one_holds_up_no_other() -> None:
    payments = FakePayments("slow", *(f"pay_{number}" for number in range(50)))
    payments.going_on.clear()
    await settling(payments, lambda: len(payments.settled) == 50)
    assert "slow" not in payments.settled


async def test_one_that_fails_too_often_is_given_up() -> None:
    payments = FakePayments("faulty", "sound", faults={"faulty": ValueError("a fault")})
    await settling(payments, lambda: payments.given_up)
    assert payments.settled == ["sound"]
    assert payments.attempts["faulty"] == payments.failures["faulty"] == ATTEMPTS
    assert (payments.given_up[0].state, payments.given_up[0].state_reason) == (State.FAILED, "SETTLEMENT_FAILED")


async def test_a_database_that_is_away_is_not_the_payments_fault() -> None:
    payments = FakePayments("pay_1", faults={"pay_1": DatabaseUnavailable()})
    await settling(payments, lambda: payments.attempts["pay_1"])
    assert payments.failures["pay_1"] == 0
