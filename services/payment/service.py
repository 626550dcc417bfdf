"""The servicer of payments: proto to domain to proto."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import grpc
from google.api import httpbody_pb2
from payment.v1 import payment_pb2, payment_pb2_grpc

from services.payment import money
from services.payment.authorization import Authorization
from services.payment.domain import Payment, State
from services.payment.store import Payments
from services.payment.streams.service import StreamService
from services.payment.visibility import Visibility
from services.runtime import caller, paging

Context = grpc.aio.ServicerContext[Any, Any]


class PaymentService(payment_pb2_grpc.PaymentServiceServicer):
    """See proto/payment/v1/payment.proto."""

    def __init__(
        self, authorization: Authorization, payments: Payments, visibility: Visibility, streams: StreamService
    ) -> None:
        self._authorization = authorization
        self._payments = payments
        self._visibility = visibility
        self._streams = streams

    async def CreatePayment(self, request: payment_pb2.CreatePaymentRequest, _: Context) -> payment_pb2.Payment:
        return await self._authorization.authorize(
            caller.current().user_id, request.payee_id, money.read(request.amount), request.description, to_proto
        )

    async def GetPayment(self, request: payment_pb2.GetPaymentRequest, _: Context) -> payment_pb2.Payment:
        return to_proto(await self._visibility.payment(request.payment_id, "officer", "admin"))

    async def ListPayments(
        self, request: payment_pb2.ListPaymentsRequest, _: Context
    ) -> payment_pb2.ListPaymentsResponse:
        who = caller.current()
        owner = "" if who.sees_as("officer", "admin") else who.user_id
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

    def StreamPaymentStatus(
        self, request: payment_pb2.StreamPaymentStatusRequest, context: Context
    ) -> AsyncGenerator[httpbody_pb2.HttpBody]:
        return self._streams.stream_payment_status(request, context)

    def StreamPayments(
        self, request: payment_pb2.StreamPaymentsRequest, context: Context
    ) -> AsyncGenerator[httpbody_pb2.HttpBody]:
        return self._streams.stream_payments(request, context)

    def WatchPayment(
        self, request: payment_pb2.WatchPaymentRequest, context: Context
    ) -> AsyncGenerator[payment_pb2.PaymentEvent]:
        return self._streams.watch_payment(request, context)


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
