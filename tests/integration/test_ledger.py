"""The ledger: accounts, statements, and the rules that the database itself keeps."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import grpc
import pytest
from google.type.money_pb2 import Money as MoneyProto
from payment.v1 import payment_pb2

from services.payment.domain import State, Verdict
from services.payment.ledger import store as ledger_store
from services.payment.ledger.store import Ledger
from services.runtime import paging
from services.runtime.ids import new_id
from services.runtime.postgres import open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, euros, open_house, refusal
from tests.integration.serving import reason
from tests.waiting import eventually

_ADD_ENTRY = """
    INSERT INTO entries (id, transaction_id, account_id, currency_code, amount, kind, create_time)
    VALUES ($1, $2, $3, 'EUR', $4, 'PAYMENT', now())"""


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as opened:
        yield opened


@pytest.fixture(autouse=True)
def kind_neighbours(house: House) -> None:
    house.kind_neighbours()


async def test_a_deposit_is_made_once_per_key(house: House) -> None:
    account = await house.account(new_id("usr"))
    await house.deposit(account.id, 25, key="pay-day")
    assert (await house.deposit(account.id, 25, key="pay-day")).balance == euros(25)
    assert (await house.account(account.owner_id)).balance == euros(25)


async def test_nothing_is_paid_into_the_world_outside(house: House) -> None:
    await house.user_with(1)
    [clearing] = await house.database.fetch("SELECT id FROM accounts WHERE clearing")
    assert reason(await refusal(house.deposit(clearing["id"], 1))) == "ACCOUNT_NOT_FOUND"


async def test_an_account_does_not_begin_with_money(house: House) -> None:
    with pytest.raises(asyncpg.RaiseError, match="moved by entries only"):
        await house.database.execute("INSERT INTO accounts VALUES ('acc_1', 'usr_1', 'EUR', false, 1, 0, now())")


async def test_a_statement_shows_what_moved(house: House) -> None:
    payer, payee = await house.user_with(100), await house.user_with(0)
    payment = await house.pay(payer, payee, 40)
    await house.settled(payer, payment.id)
    account = await house.account(payer)
    request = payment_pb2.ListEntriesRequest(account_id=account.id)
    entries = (await house.accounts(payer).ListEntries(request)).entries
    assert [(one.kind, one.amount.units, one.payment_id) for one in entries] == [
        (payment_pb2.Entry.PAYMENT, -40, payment.id),
        (payment_pb2.Entry.DEPOSIT, 100, ""),
    ]
    assert reason(await refusal(house.accounts(payee).ListEntries(request))) == "NOT_THE_OWNER"
    assert (await house.accounts("usr_t", "treasurer").ListEntries(request)).entries == entries


async def test_another_account_is_opened_once_per_currency(house: House) -> None:
    owner = new_id("usr")
    request = payment_pb2.CreateAccountRequest(currency_code="USD")
    opened = await house.accounts(owner, "customer").CreateAccount(request)
    listed = (await house.accounts(owner).ListAccounts(payment_pb2.ListAccountsRequest())).accounts
    assert [one.currency_code for one in listed] == ["USD", "EUR"]
    error = await refusal(house.accounts(owner, "customer").CreateAccount(request))
    assert (error.code(), reason(error)) == (grpc.StatusCode.ALREADY_EXISTS, "ACCOUNT_ALREADY_EXISTS")
    dollars = MoneyProto(currency_code="JPY", units=1)
    deposit = payment_pb2.CreateDepositRequest(account_id=opened.id, amount=dollars)
    treasury = house.accounts("usr_t", "treasurer", idempotency_key="jpy")
    assert reason(await refusal(treasury.CreateDeposit(deposit))) == "CURRENCY_MISMATCH"


async def test_the_database_refuses_what_breaks_the_ledger(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    mine, theirs = (await house.account(payer)).id, (await house.account(payee)).id
    with pytest.raises(asyncpg.RaiseError, match="sum to zero"):
        await house.database.execute(_ADD_ENTRY, new_id("ent"), "txn_1", mine, 5)
    with pytest.raises(asyncpg.RaiseError, match="never changed"):
        await house.database.execute("DELETE FROM entries")
    with pytest.raises(asyncpg.RaiseError, match="by entries only"):
        await house.database.execute("UPDATE accounts SET balance = balance + 1")
    with pytest.raises(asyncpg.CheckViolationError, match="nothing_is_overdrawn"):
        async with house.database.transaction() as connection:
            await connection.execute(_ADD_ENTRY, new_id("ent"), "txn_2", theirs, 1100)
            await connection.execute(_ADD_ENTRY, new_id("ent"), "txn_2", mine, -1100)
    assert (await house.account(payer)).balance == euros(10)


async def test_a_payment_is_added_while_another_to_the_same_payee_is_being_settled(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    account = await house.account(payee)
    async with house.database.transaction() as settling, asyncio.timeout(10):
        assert account.id in await ledger_store.lock(settling, account.id)
        assert (await house.pay(payer, payee, 1)).state == payment_pb2.Payment.AUTHORIZED


async def move(house: House, entry_id: str, to_id: str, from_id: str) -> None:
    """Moves one cent; the entry of the account that gains it has this id."""
    async with house.database.transaction() as connection:
        transaction_id = new_id("txn")
        await connection.execute(_ADD_ENTRY, entry_id, transaction_id, to_id, 1)
        await connection.execute(_ADD_ENTRY, new_id("ent"), transaction_id, from_id, -1)


async def test_a_statement_is_in_the_order_of_commits_whatever_the_clocks_say(house: House) -> None:
    owner, other = await house.user_with(1), await house.user_with(1)
    mine, theirs = await house.account(owner), await house.account(other)
    for entry_id in ("ent_f", "ent_3", "ent_1", "ent_2"):  # by four machines, whose clocks differ
        await move(house, f"{entry_id}_{mine.id}", mine.id, theirs.id)
    everything = payment_pb2.ListEntriesRequest(account_id=mine.id)
    before = [entry.id for entry in (await house.accounts(owner).ListEntries(everything)).entries]
    assert [entry_id[:5] for entry_id in before[:4]] == ["ent_2", "ent_1", "ent_3", "ent_f"]

    request = payment_pb2.ListEntriesRequest(account_id=mine.id, page_size=2)
    first = await house.accounts(owner).ListEntries(request)
    await move(house, f"ent_0_{mine.id}", mine.id, theirs.id)
    request.page_token = first.next_page_token
    second = await house.accounts(owner).ListEntries(request)
    assert [entry.id for entry in (*first.entries, *second.entries)] == before[:4]


async def test_a_statement_goes_on_with_entries_from_before_they_had_positions(fresh_database: FreshDatabase) -> None:
    async with open_database(fresh_database("payment")) as database:
        ledger, now = Ledger(database), datetime.now(UTC)
        mine = await ledger.open_account("usr_1", "EUR", now)
        await database.execute("ALTER TABLE entries DISABLE TRIGGER USER")  # as if by the version before
        for place in (8, 9):
            await database.execute(_ADD_ENTRY, f"ent_{place}", "txn", mine.id, 1)
        await database.execute("ALTER TABLE entries ENABLE TRIGGER apply_entry")
        for place in (2, 1):
            await database.execute(_ADD_ENTRY, f"ent_{place}", "txn", mine.id, 1)
        ids, token = [], ""
        for _ in range(4):
            page = paging.page(1, token)
            entries, token = page.cut(await ledger.entries_of(mine.id, page), lambda entry: entry.id)
            ids += [entry.id for entry in entries]
        assert (ids, token) == (["ent_1", "ent_2", "ent_9", "ent_8"], "")


async def test_pages_of_a_statement_are_found_by_an_index(house: House) -> None:
    owner = await house.user_with(1)
    account = await house.account(owner)
    async with house.database.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = await connection.fetch("EXPLAIN " + ledger_store._LIST_ENTRIES, "ent_1", 51, account.id)
    text = "\n".join(row[0] for row in plan)
    assert "entries_in_order" in text
    assert "Sort" not in text
    assert "ROW(" in text[text.index("Index Cond") :]


async def test_money_goes_round_without_a_deadlock_and_without_a_cent_lost(house: House) -> None:
    """Payments, decisions, refunds and cancels between few users in all directions at once, while they are settled."""
    users = [await house.user_with(100) for _ in range(3)]
    chance = random.Random(4)  # noqa: S311  # the same every time
    made: list[payment_pb2.Payment] = []

    async def pay() -> None:
        payer, payee = chance.sample(users, 2)
        house.compliance.verdict = chance.choice([Verdict(State.IN_REVIEW, "", 70), Verdict(State.AUTHORIZED, "", 0)])
        made.append(await house.pay(payer, payee, chance.randint(1, 10)))

    async def approve() -> None:
        request = payment_pb2.ApprovePaymentRequest(payment_id=chance.choice(made).id)
        await house.officer().ApprovePayment(request)

    async def decline() -> None:
        request = payment_pb2.DeclinePaymentRequest(payment_id=chance.choice(made).id)
        await house.officer().DeclinePayment(request)

    async def cancel() -> None:
        payment = chance.choice(made)
        request = payment_pb2.CancelPaymentRequest(payment_id=payment.id)
        await house.pays(payment.payer_id).CancelPayment(request)

    async def refund() -> None:
        payment = chance.choice(first)
        request = payment_pb2.RefundPaymentRequest(payment_id=payment.id, amount=euros(1))
        await house.pays(payment.payee_id, idempotency_key=new_id("key")).RefundPayment(request)

    async def deposit() -> None:
        await house.deposit((await house.account(chance.choice(users))).id, 1)

    async def all_settled() -> bool:
        return not await house.database.fetch("SELECT FROM payments WHERE state = 'AUTHORIZED'")

    await asyncio.gather(*(pay() for _ in range(30)))
    await eventually(all_settled)
    first = [one for one in made if one.state == payment_pb2.Payment.AUTHORIZED]
    doing = chance.choices([pay, approve, decline, cancel, refund, deposit], [6, 3, 3, 2, 6, 1], k=400)
    at_once = asyncio.Semaphore(40)

    async def outcome(do: Callable[[], Awaitable[None]]) -> tuple[str, str]:
        async with at_once:
            return do.__name__, await why_not(do)

    outcomes = Counter(await asyncio.gather(*map(outcome, doing)))
    assert {why for _, why in outcomes} <= {"", "ILLEGAL_TRANSITION", "REFUND_EXCEEDS_PAYMENT", "INSUFFICIENT_FUNDS"}
    assert all(outcomes[do.__name__, ""] for do in doing)
    await eventually(all_settled)
    assert await house.database.fetch("SELECT FROM payments WHERE settle_failures > 0 OR state = 'FAILED'") == []
    await house.require_right_books()
    total = sum([(await house.account(user)).balance.units for user in users])
    assert total == 300 + doing.count(deposit)


async def why_not(do: Callable[[], Awaitable[None]]) -> str:
    """Why something could not be done; empty when it was."""
    try:
        await do()
    except grpc.aio.AioRpcError as error:
        return reason(error)
    return ""
