"""The servicer of accounts: proto to domain to proto."""

from datetime import UTC, datetime
from typing import Any

import grpc
from payment.v1 import payment_pb2, payment_pb2_grpc

from services.payment import money
from services.payment.ledger.domain import STARTING_CURRENCY, Account, Entry
from services.payment.ledger.store import Ledger
from services.runtime import caller, paging

Context = grpc.aio.ServicerContext[Any, Any]


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
