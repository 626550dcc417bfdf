"""The servicer of payments: proto to domain to proto."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import grpc
from google.api import httpbody_pb2
from payment.v1 import payment_pb2, payment_pb2_grpc

from services.payment import events, money, sse
from services.payment.authorization import Authorization
from services.payment.domain import Payment, State
from services.payment.store import Payments
from services.payment.watch import Watch
from services.runtime import caller, paging
from services.runtime.errors import FieldViolation, InvalidRequest

Context = grpc.aio.ServicerContext[Any, Any]


class PaymentService(payment_pb2_grpc.PaymentServiceServicer):
    """See proto/payment/v1/payment.proto."""

    def __init__(self, authorization: Authorization, payments: Payments, watch: Watch) -> None:
        self._authorization = authorization
        self._payments = payments
        self._watch = watch

    async def CreatePayment(self, request: payment_pb2.CreatePaymentRequest, _: Context) -> payment_pb2.Payment:
        return await self._authorization.authorize(
            caller.current().user_id, request.payee_id, money.read(request.amount), request.description, to_proto
        )

    async def GetPayment(self, request: payment_pb2.GetPaymentRequest, _: Context) -> payment_pb2.Payment:
        return to_proto(await self._visible(request.payment_id, "officer", "admin"))

    async def ListPayments(
        self, request: payment_pb2.ListPaymentsRequest, _: Context
    ) -> payment_pb2.ListPaymentsResponse:
        who = caller.current()
        owner = "" if who.has("officer", "admin") else who.user_id
        state = State(request.state) if request.state else None
        page = paging.page(request.page_size, request.page_token, "payments", owner, *([state.name] if state else []))
        rows = await (self._payments.list_of(owner, state, page) if owner else self._payments.list_all(state, page))
        payments, token = page.cut(rows, lambda payment: payment.id)
        return payment_pb2.ListPaymentsResponse(payments=map(to_proto, payments), next_page_token=token)

    async def CancelPayment(self, request: payment_pb2.CancelPaymentRequest, _: Context) -> payment_pb2.Payment:
        user_id, now = caller.current().user_id, datetime.now(UTC)
        return to_proto(
            await self._payments.change(
                request.payment_id, lambda payment: payment.cancelled(user_id, request.etag, now)
            )
        )

    async def RefundPayment(self, request: payment_pb2.RefundPaymentRequest, _: Context) -> payment_pb2.Payment:
        who, now = caller.current(), datetime.now(UTC)
        amount = money.read(request.amount) if request.HasField("amount") else None

        def refund(payment: Payment) -> Payment:
            return payment.refund(who.user_id, admin=who.has("admin"), etag=request.etag, amount=amount, now=now)

        return await self._payments.change_once(request.payment_id, refund, to_proto)

    async def ApprovePayment(self, request: payment_pb2.ApprovePaymentRequest, _: Context) -> payment_pb2.Payment:
        officer_id = caller.current().user_id
        return to_proto(await self._authorization.approve(request.payment_id, officer_id, request.etag))

    async def DeclinePayment(self, request: payment_pb2.DeclinePaymentRequest, _: Context) -> payment_pb2.Payment:
        user_id, now = caller.current().user_id, datetime.now(UTC)
        return to_proto(
            await self._payments.change(request.payment_id, lambda payment: payment.refused(user_id, request.etag, now))
        )

    async def StreamPaymentStatus(
        self, request: payment_pb2.StreamPaymentStatusRequest, context: Context
    ) -> AsyncGenerator[httpbody_pb2.HttpBody]:
        payment = await self._visible(request.payment_id, "officer")
        header = dict(context.invocation_metadata() or ()).get("last-event-id", "")
        after = sse.last_event_id(str(header), payment.sequence)
        if payment.state.terminal and after == payment.sequence:
            await context.send_initial_metadata((("x-http-code", "204"),))
            return
        async for chunk in sse.stream(payment, self._watch.changes(payment, after)):
            yield httpbody_pb2.HttpBody(content_type=sse.CONTENT_TYPE, data=chunk)

    async def WatchPayment(
        self, request: payment_pb2.WatchPaymentRequest, _: Context
    ) -> AsyncGenerator[payment_pb2.PaymentEvent]:
        payment = await self._visible(request.payment_id, "officer")
        if request.after_sequence > payment.sequence:
            raise InvalidRequest(FieldViolation("afterSequence", "is beyond the payment's last event"))
        if payment.state.terminal and request.after_sequence == payment.sequence:
            return
        async for change in self._watch.changes(payment, request.after_sequence):
            if change is not None:
                yield events.to_proto(payment, change)

    async def _visible(self, payment_id: str, *roles: str) -> Payment:
        """Returns a payment to its parties and callers with one of these roles."""
        payment = await self._payments.get(payment_id)
        who = caller.current()
        if not who.has(*roles):
            payment.require_party(who.user_id)
        return payment


def to_proto(payment: Payment) -> payment_pb2.Payment:
    """Returns a payment as clients see it."""
    proto = payment_pb2.Payment(
        id=payment.id,
        payer_id=payment.payer_id,
        payee_id=payment.payee_id,
        amount=money.write(payment.amount),
        description=payment.description,
        state=payment_pb2.Payment.State.ValueType(payment.state.value),
        state_reason=payment.state_reason,
        invoice_id=payment.invoice_id,
        risk_score=payment.risk_score,
        etag=payment.etag,
        refunded_amount=money.write(payment.refunded),
    )
    proto.create_time.FromDatetime(payment.create_time)
    proto.update_time.FromDatetime(payment.update_time)
    if payment.review_expire_time is not None:
        proto.review_expire_time.FromDatetime(payment.review_expire_time)
    return proto
