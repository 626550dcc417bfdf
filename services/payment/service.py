"""The servicers of payments and accounts: proto to domain to proto."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import grpc
from google.api import httpbody_pb2
from payment.v1 import payment_pb2, payment_pb2_grpc

from services.payment import events, money, sse
from services.payment.authorization import Authorization
from services.payment.domain import STARTING_CURRENCY, Account, Entry, Payment
from services.payment.store import Ledger, Payments
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
            caller.current().user_id, request.payee_id, money.read(request.amount), request.description, _payment
        )

    async def GetPayment(self, request: payment_pb2.GetPaymentRequest, _: Context) -> payment_pb2.Payment:
        return _payment(await self._visible(request.payment_id, "officer", "admin"))

    async def ListPayments(
        self, request: payment_pb2.ListPaymentsRequest, _: Context
    ) -> payment_pb2.ListPaymentsResponse:
        who = caller.current()
        owner = "" if who.has("officer", "admin") else who.user_id
        page = paging.page(request.page_size, request.page_token, "payments", owner)
        rows = await (self._payments.list_of(owner, page) if owner else self._payments.list_all(page))
        payments, token = page.cut(rows, lambda payment: payment.id)
        return payment_pb2.ListPaymentsResponse(payments=map(_payment, payments), next_page_token=token)

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


class AccountService(payment_pb2_grpc.AccountServiceServicer):
    """See proto/payment/v1/payment.proto."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def CreateAccount(self, request: payment_pb2.CreateAccountRequest, _: Context) -> payment_pb2.Account:
        money.require_currency(request.currency_code, "currencyCode")
        owner_id, now = caller.current().user_id, datetime.now(UTC)
        await self._ledger.accounts_in(STARTING_CURRENCY, (owner_id,), now)
        return _account(await self._ledger.open_account(owner_id, request.currency_code, now))

    async def GetAccount(self, request: payment_pb2.GetAccountRequest, _: Context) -> payment_pb2.Account:
        return _account(await self._visible(request.account_id))

    async def ListAccounts(
        self, request: payment_pb2.ListAccountsRequest, _: Context
    ) -> payment_pb2.ListAccountsResponse:
        owner_id = caller.current().user_id
        page = paging.page(request.page_size, request.page_token, "accounts", owner_id)
        await self._ledger.accounts_in(STARTING_CURRENCY, (owner_id,), datetime.now(UTC))
        rows = await self._ledger.accounts_of(owner_id, page)
        accounts, token = page.cut(rows, lambda account: account.id)
        return payment_pb2.ListAccountsResponse(accounts=map(_account, accounts), next_page_token=token)

    async def CreateDeposit(self, request: payment_pb2.CreateDepositRequest, _: Context) -> payment_pb2.Account:
        amount = money.read(request.amount)
        return await self._ledger.deposit(request.account_id, amount, datetime.now(UTC), _account)

    async def ListEntries(self, request: payment_pb2.ListEntriesRequest, _: Context) -> payment_pb2.ListEntriesResponse:
        account = await self._visible(request.account_id)
        page = paging.page(request.page_size, request.page_token, "entries", account.id)
        entries, token = page.cut(await self._ledger.entries_of(account.id, page), lambda entry: entry.id)
        return payment_pb2.ListEntriesResponse(entries=map(_entry, entries), next_page_token=token)

    async def _visible(self, account_id: str) -> Account:
        """Returns an account to its owner or a treasurer."""
        account = await self._ledger.account(account_id)
        caller.current().require_owner(account.owner_id, f"Account {account_id}", "treasurer")
        return account


def _payment(payment: Payment) -> payment_pb2.Payment:
    proto = payment_pb2.Payment(
        id=payment.id,
        payer_id=payment.payer_id,
        payee_id=payment.payee_id,
        amount=money.write(payment.amount),
        description=payment.description,
        state=payment_pb2.Payment.State.ValueType(payment.state.value),
        state_reason=payment.state_reason,
        risk_score=payment.risk_score,
        etag=str(payment.sequence),
    )
    proto.create_time.FromDatetime(payment.create_time)
    proto.update_time.FromDatetime(payment.update_time)
    return proto


def _account(account: Account) -> payment_pb2.Account:
    proto = payment_pb2.Account(
        id=account.id,
        owner_id=account.owner_id,
        currency_code=account.balance.currency_code,
        balance=money.write(account.balance),
        reserved=money.write(account.reserved),
        available=money.write(account.available),
    )
    proto.create_time.FromDatetime(account.create_time)
    return proto


def _entry(entry: Entry) -> payment_pb2.Entry:
    proto = payment_pb2.Entry(
        id=entry.id,
        account_id=entry.account_id,
        amount=money.write(entry.amount),
        payment_id=entry.payment_id,
        kind=payment_pb2.Entry.Kind.Value(entry.kind),
    )
    proto.create_time.FromDatetime(entry.create_time)
    return proto
