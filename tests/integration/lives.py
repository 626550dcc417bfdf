"""Payments brought to each of their states, and what may be done to them there."""

from datetime import UTC, datetime

import grpc
from payment.v1 import payment_pb2

from services.payment.domain import State, Verdict
from services.runtime.ids import new_id
from tests.integration.paying import House, euros
from tests.integration.serving import reason

PAID = 10


async def made(house: House, state: State, units: int = PAID) -> payment_pb2.Payment:
    """A payment in this state, of all that its payer has."""
    payer, payee = await house.user_with(units), await house.user_with(0)
    if state in (State.IN_REVIEW, State.DECLINED):
        house.compliance.verdict = Verdict(state, "RISK_REVIEW", 70)
    payment = await house.pay(payer, payee, units)
    house.kind_neighbours()
    if state is State.FAILED:
        await house.payments.change(payment.id, lambda one: one.failed("SETTLEMENT_FAILED", datetime.now(UTC)))
    if state in (State.SETTLED, State.REFUNDED):
        await house.payments.settle(payment.id, datetime.now(UTC))
    if state is State.REFUNDED:
        await done(house, "refund", payment)
    if state is State.CANCELLED:
        await done(house, "cancel", payment)
    payment = await house.payment(payment.id)
    assert payment.state == state.value
    return payment


async def done(house: House, what: str, payment: payment_pb2.Payment, etag: str = "") -> payment_pb2.Payment:
    """Does something to a payment as whoever may do it."""
    if what == "cancel":
        cancel = payment_pb2.CancelPaymentRequest(payment_id=payment.id, etag=etag)
        return await house.pays(payment.payer_id).CancelPayment(cancel)
    if what == "approve":
        approve = payment_pb2.ApprovePaymentRequest(payment_id=payment.id, etag=etag)
        return await house.officer().ApprovePayment(approve)
    if what == "decline":
        decline = payment_pb2.DeclinePaymentRequest(payment_id=payment.id, etag=etag)
        return await house.officer().DeclinePayment(decline)
    return await refunded(house, payment, etag=etag)


async def refunded(
    house: House, payment: payment_pb2.Payment, units: int | None = None, key: str | None = None, etag: str = ""
) -> payment_pb2.Payment:
    """Pays a payment back as its payee."""
    request = payment_pb2.RefundPaymentRequest(payment_id=payment.id, etag=etag)
    if units is not None:
        request.amount.CopyFrom(euros(units))
    return await house.pays(payment.payee_id, idempotency_key=key or new_id("key")).RefundPayment(request)


async def spendable(house: House, payment: payment_pb2.Payment) -> tuple[int, int]:
    """What payer and payee can spend."""
    payer, payee = await house.account(payment.payer_id), await house.account(payment.payee_id)
    return payer.available.units, payee.available.units


async def outcome(call: object) -> str:
    """Why a call failed, or "done"."""
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return reason(error)
    return "done"
