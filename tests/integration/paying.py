"""The payment service behind its interceptors, with real Postgres and NATS and hand-written neighbours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.type.money_pb2 import Money as MoneyProto
from payment.v1 import invoice_pb2_grpc, payment_pb2, payment_pb2_grpc

from services.payment.authorization import Authorization
from services.payment.clients import Compliance, Documents, Users
from services.payment.domain import State, Verdict
from services.payment.invoices.service import InvoiceService
from services.payment.invoices.store import Invoices
from services.payment.ledger.domain import Money
from services.payment.ledger.service import AccountService
from services.payment.ledger.store import Ledger
from services.payment.parties import Party
from services.payment.reviews import Reviews
from services.payment.service import PaymentService
from services.payment.settlement import Settlement
from services.payment.store import Payments
from services.payment.streams.domain import Places
from services.payment.streams.hub import Hub
from services.payment.streams.service import StreamService
from services.payment.streams.store import Events
from services.payment.visibility import Visibility
from services.runtime import idempotency
from services.runtime.bus import Bus, open_bus
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from services.runtime.postgres import Database, open_database
from services.runtime.revocations import Revocations
from services.runtime.trail import Trail
from services.runtime.writing import WRITE_SECONDS
from tests.integration.serving import As, identity, serving


class FakeUsers(Users):
    """Everybody exists and is active, but those told otherwise."""

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        self.suspended: set[str] = set()

    async def parties(self, *user_ids: str) -> dict[str, Party]:
        known = [user_id for user_id in user_ids if user_id not in self.unknown]
        return {user_id: Party(user_id, "Ada Byron", "DE", user_id not in self.suspended) for user_id in known}


class FakeCompliance(Compliance):
    """Everybody passed KYC, but those told otherwise; screening says what it is told to."""

    def __init__(self) -> None:
        self.pending: set[str] = set()
        self.verdict = Verdict(State.AUTHORIZED, "", 5)

    async def kyc_passed(self, user_id: str) -> bool:
        return user_id not in self.pending

    async def screen(self, payment_id: str, payer: Party, payee: Party, amount: Money) -> Verdict:
        return self.verdict


class FakeDocuments(Documents):
    """Everybody has an identity document, but those told otherwise."""

    def __init__(self) -> None:
        self.without: set[str] = set()

    async def has_identity(self, user_id: str) -> bool:
        return user_id not in self.without


@dataclass
class House:
    """The service, and what the tests reach around it for."""

    edge: As
    database: Database
    bus: Bus
    payments: Payments
    users: FakeUsers = field(default_factory=FakeUsers)
    compliance: FakeCompliance = field(default_factory=FakeCompliance)
    documents: FakeDocuments = field(default_factory=FakeDocuments)
    settling: asyncio.Task[None] | None = None
    hub: Hub = field(init=False)
    revocations: Revocations = field(init=False)

    def kind_neighbours(self) -> None:
        """Makes the neighbours as they are in the beginning."""
        for one in (self.users, self.compliance, self.documents):
            one.__init__()  # type: ignore[misc]

    @asynccontextmanager
    async def settling_paused(self) -> AsyncIterator[None]:
        """Without the settlement worker for a while."""
        if self.settling:
            self.settling.cancel()
            await asyncio.gather(self.settling, return_exceptions=True)
        try:
            yield
        finally:
            self.settling = asyncio.create_task(Settlement(self.payments).run())

    def officer(self, user_id: str = "usr_officer") -> "payment_pb2_grpc.PaymentServiceAsyncStub":
        return self.payments_as(user_id, "officer")

    def pays(self, user_id: str, **metadata: str) -> "payment_pb2_grpc.PaymentServiceAsyncStub":
        return self.payments_as(user_id, "customer", **metadata)

    def payments_as(self, user_id: str, *roles: str, **metadata: str) -> "payment_pb2_grpc.PaymentServiceAsyncStub":
        return payment_pb2_grpc.PaymentServiceStub(self.edge.user(user_id, *roles, **metadata))

    def accounts(self, user_id: str, *roles: str, **metadata: str) -> "payment_pb2_grpc.AccountServiceAsyncStub":
        return payment_pb2_grpc.AccountServiceStub(self.edge.user(user_id, *roles, **metadata))

    async def account(self, user_id: str) -> payment_pb2.Account:
        response = await self.accounts(user_id).ListAccounts(payment_pb2.ListAccountsRequest())
        return next(account for account in response.accounts if account.currency_code == "EUR")

    async def user_with(self, units: int) -> str:
        user_id = new_id("usr")
        if units:
            await self.deposit((await self.account(user_id)).id, units)
        return user_id

    async def deposit(self, account_id: str, units: int, key: str | None = None) -> payment_pb2.Account:
        treasury = self.accounts("usr_treasurer", "treasurer", idempotency_key=key or new_id("key"))
        return await treasury.CreateDeposit(
            payment_pb2.CreateDepositRequest(account_id=account_id, amount=euros(units))
        )

    async def pay(self, payer: str, payee: str, units: int, key: str | None = None) -> payment_pb2.Payment:
        stub = self.pays(payer, idempotency_key=key or new_id("key"))
        return await stub.CreatePayment(payment_pb2.CreatePaymentRequest(payee_id=payee, amount=euros(units)))

    async def payment(self, payment_id: str) -> payment_pb2.Payment:
        return await self.officer().GetPayment(payment_pb2.GetPaymentRequest(payment_id=payment_id))

    async def settled(self, payer: str, payment_id: str) -> payment_pb2.PaymentEvent:
        """Watches a payment to its end."""
        watching = self.pays(payer).WatchPayment(payment_pb2.WatchPaymentRequest(payment_id=payment_id))
        events = [event async for event in watching]
        return events[-1]

    async def require_right_books(self) -> None:
        """Asserts what holds of the whole database at every moment."""
        for wrong, query in WRONG.items():
            assert await self.database.fetch(query) == [], wrong


WRONG = {
    "a transaction or a currency does not sum to zero": """
        SELECT transaction_id, currency_code FROM entries
        GROUP BY GROUPING SETS ((1, 2), (2)) HAVING sum(amount) <> 0""",
    "a balance is not the sum of its entries": """
        SELECT a.id FROM accounts a LEFT JOIN entries e ON e.account_id = a.id
        GROUP BY a.id HAVING a.balance <> coalesce(sum(e.amount), 0) OR a.entry_count <> count(e.id)""",
    "what is reserved is not what payments hold": """
        SELECT a.id FROM accounts a
        LEFT JOIN payments p ON p.payer_account_id = a.id AND p.state IN ('AUTHORIZED', 'IN_REVIEW')
        GROUP BY a.id HAVING a.reserved <> coalesce(sum(p.amount), 0)""",
    "what a payment moved is not what its state says": """
        SELECT p.id FROM payments p LEFT JOIN entries e ON e.payment_id = p.id AND e.account_id = p.payee_account_id
        GROUP BY p.id HAVING
            coalesce(sum(e.amount) FILTER (WHERE e.kind = 'PAYMENT'), 0)
                <> CASE WHEN p.state IN ('SETTLED', 'REFUNDED') THEN p.amount ELSE 0 END
            OR coalesce(-sum(e.amount) FILTER (WHERE e.kind = 'REFUND'), 0) <> p.refunded
            OR (p.state = 'REFUNDED') <> (p.refunded = p.amount)""",
    "a payment's events are not its life": """
        SELECT p.id FROM payments p LEFT JOIN payment_events e ON e.payment_id = p.id
        GROUP BY p.id HAVING count(*) <> p.sequence OR max(e.sequence) <> p.sequence
            OR (array_agg(e.state ORDER BY e.sequence DESC))[1] <> p.state
            OR (array_agg(e.refunded ORDER BY e.sequence DESC))[1] <> p.refunded""",
    "what users were told is not what became of their payments": """
        SELECT user_id FROM user_event_counts FULL JOIN (
            SELECT user_id, count(*) AS told, max(position) AS last, min(position) AS first
            FROM user_events GROUP BY user_id
        ) AS positions USING (user_id)
        WHERE events IS DISTINCT FROM told OR last <> told OR first <> 1
        UNION ALL
        SELECT 'all' WHERE (SELECT count(*) FROM user_events) <> 2 * (SELECT count(*) FROM payment_events)""",
    "a payment is due that is not to be settled": """
        SELECT id FROM payments WHERE (settle_time IS NOT NULL) <> (state = 'AUTHORIZED')
            OR (review_expire_time IS NOT NULL) <> (state = 'IN_REVIEW')""",
}


def euros(units: int, nanos: int = 0) -> MoneyProto:
    return MoneyProto(currency_code="EUR", units=units, nanos=nanos)


@asynccontextmanager
async def open_house(
    database_url: str,
    nats_url: str,
    certificates: Path,
    *,
    streams_per_user: int = 100,
    streams: int = 3000,
    write_seconds: float = WRITE_SECONDS,
) -> AsyncIterator[House]:
    """Serves, relays and settles. Two of one database are two replicas."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "payment")))
        outbox = Outbox("payment", database, bus)
        payments, ledger = Payments(database, outbox), Ledger(database)
        events, visibility, revocations = Events(database), Visibility(payments), Revocations(bus)
        hub = Hub(events, bus)
        made = House(edge=None, database=database, bus=bus, payments=payments)  # type: ignore[arg-type]  # set below
        made.hub, made.revocations = hub, revocations
        authorization = Authorization(
            made.users,
            made.compliance,
            made.documents,
            ledger,
            payments,
            settlement_delay=timedelta(milliseconds=50),
            review_expire=timedelta(days=7),
        )
        places = Places(streams_per_user, streams)
        stream_service = StreamService(visibility, events, hub, revocations, places)
        payment_service = PaymentService(authorization, payments, visibility, stream_service)
        register = [
            partial(payment_pb2_grpc.add_PaymentServiceServicer_to_server, payment_service),
            partial(payment_pb2_grpc.add_AccountServiceServicer_to_server, AccountService(ledger)),
            partial(
                invoice_pb2_grpc.add_InvoiceServiceServicer_to_server,
                InvoiceService(Invoices(database), authorization, made.users),
            ),
        ]
        layer = idempotency.interceptor(database)
        port = await stack.enter_async_context(
            serving(
                register,
                certificates,
                "payment",
                layer,
                write_seconds=write_seconds,
                trail=Trail("payment", database),
            )
        )
        made.edge = As(port, certificates, "payment")
        stack.push_async_callback(made.edge.close)
        background = [
            asyncio.create_task(one) for one in (outbox.relay(), hub.run(), revocations.run(), Reviews(payments).run())
        ]
        async with made.settling_paused():
            pass  # it begins afterwards
        yield made
        for task in (*background, made.settling):
            if task:
                task.cancel()


async def refusal(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value
