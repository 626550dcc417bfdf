"""Each process is killed at the worst point of what it does, and the client asks again."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import LiteralString

import pytest

from tests.edge.people import Person
from tests.edge.stack import Stack
from tests.faults.book import connect
from tests.faults.conftest import Scene
from tests.faults.log import Wish, deposit, money, pay
from tests.faults.stalls import commits_held, freeze, holding, thaw, wait_until_committing
from tests.faults.town import Town
from tests.waiting import wait_until

CENTS = 1234


def payment(town: Town) -> Wish:
    payer, payee, *_ = town.people
    return pay(town.log, payer, payee, CENTS)


def paying_in(town: Town) -> Wish:
    return deposit(town.log, town.admin, town.accounts[town.people[0].id], CENTS)


def refund(town: Town) -> Wish:
    """Of a payment that is settled, by its payee: the first of the town."""
    payee, payer, *_ = town.people
    paid = pay(town.log, payer, payee, CENTS)
    town.log.fulfil(paid)
    payment_id = paid.told()["id"]
    payer.settled(payment_id)
    return town.log.wish("refund", payee, f"payments/{payment_id}:refund", {"amount": money(CENTS)}, cents=CENTS)


def invoice_payment(town: Town) -> Wish:
    payer, payee, *_ = town.people
    lines = [{"description": "Cake", "quantity": 1, "unitAmount": money(CENTS)}]
    body = {"payerId": payer.id, "lines": lines, "dueDate": {"year": 2100, "month": 1, "day": 1}}
    issued = town.log.wish("invoice", payee, "invoices", body | {"description": secrets.token_hex(8)}, keyed=False)
    town.log.fulfil(issued)
    return town.log.wish("invoice payment", payer, f"invoices/{issued.told()['id']}:pay", {}, cents=CENTS)


WISHES = [payment, paying_in, refund, invoice_payment]
"""What moves money, and locks the account of the first person of the town."""
Making = Callable[[Town], Wish]


def account_of(town: Town, person: Person) -> tuple[LiteralString, str]:
    """The lock of somebody's account, as statement and argument."""
    return "SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", town.accounts[person.id]


def kept(stack: Stack, wish: Wish) -> bool:
    """Tells whether a wish's key is in the database, and with it what it did."""
    with connect(stack.settings, "payment") as connection:
        return bool(connection.execute("SELECT FROM idempotency_keys WHERE key = %s", [wish.key]).fetchall())


def handled(stack: Stack, message_id: str) -> bool:
    """Tells whether notification has noted that it handled an event."""
    with connect(stack.settings, "notification") as connection:
        return bool(connection.execute("SELECT FROM handled_events WHERE message_id = %s", [message_id]).fetchall())


def in_outbox(stack: Stack) -> bool:
    """Tells whether payment has events that are not in the stream, as far as it knows."""
    with connect(stack.settings, "payment") as connection:
        return bool(connection.execute("SELECT FROM outbox").fetchall())


def relaying(stack: Stack) -> bool:
    """Tells whether payment has read its outbox and is about to publish what it found."""
    query = (
        "SELECT FROM pg_stat_activity WHERE usename = 'payment' AND state = 'idle in transaction' AND query ~ 'outbox'"
    )
    with connect(stack.settings, "postgres") as connection:
        return bool(connection.execute(query).fetchall())


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """A thread for requests that are disturbed."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


@pytest.mark.parametrize("make", WISHES)
def test_what_is_killed_inside_its_transaction_has_done_nothing_and_blocks_nobody(
    scene: Scene, background: ThreadPoolExecutor, make: Making
) -> None:
    wish, log = make(scene.town), scene.log
    with holding(scene.stack, "payment", *account_of(scene.town, scene.town.people[0])) as hold:
        first = background.submit(log.ask, wish)
        hold.wait()
        scene.stack.kill("payment")
        assert first.result().for_now
        hold.wait_until_given_up()
    assert not kept(scene.stack, wish)
    again = log.fulfil(wish)
    assert (again.good, again.replayed) == (True, False)
    scene.check()


@pytest.mark.parametrize("make", WISHES)
@pytest.mark.parametrize("killed", ["payment", "postgres"])
def test_what_is_killed_after_it_has_committed_gives_the_same_answer_later(
    scene: Scene, background: ThreadPoolExecutor, make: Making, killed: str
) -> None:
    wish, log, stack = make(scene.town), scene.log, scene.stack
    with ExitStack() as held:
        with holding(stack, "payment", *account_of(scene.town, scene.town.people[0])) as hold:
            first = background.submit(log.ask, wish)
            hold.wait()
            held.enter_context(commits_held(stack))
        wait_until_committing(stack, "payment")
        if killed == "payment":
            freeze(stack, killed)
        else:
            stack.kill(killed)
    wait_until(lambda: kept(stack, wish), "what was committed is lost")
    if killed == "payment":
        stack.kill(killed)
    assert first.result().for_now
    assert log.fulfil(wish).replayed
    scene.check()


def test_a_transaction_that_loses_postgres_has_done_nothing(scene: Scene, background: ThreadPoolExecutor) -> None:
    wish, log = payment(scene.town), scene.log
    with holding(scene.stack, "payment", *account_of(scene.town, scene.town.people[0])) as hold:
        first = background.submit(log.ask, wish)
        hold.wait()
        scene.stack.kill("postgres")
        assert first.result().for_now
    assert not kept(scene.stack, wish)
    assert log.fulfil(wish).good
    scene.check()


def test_a_payment_is_made_once_though_the_edge_is_killed_while_it_is_made(
    scene: Scene, background: ThreadPoolExecutor
) -> None:
    wish, log = payment(scene.town), scene.log
    with holding(scene.stack, "payment", *account_of(scene.town, scene.town.people[0])) as hold:
        first = background.submit(log.ask, wish)
        hold.wait()
        scene.stack.kill("envoy")
        assert first.result().status == 0
    assert log.fulfil(wish).good
    scene.check()


@pytest.mark.parametrize("part", ["authz", "user", "compliance", "document"])
def test_a_payment_is_made_once_though_what_it_asks_is_killed(
    scene: Scene, background: ThreadPoolExecutor, part: str
) -> None:
    wish, log, stack = payment(scene.town), scene.log, scene.stack
    freeze(stack, part)
    first = background.submit(log.ask, wish)
    wait_until(lambda: stack.in_flight("authz" if part == "authz" else "payment") > 0, "nobody asks")
    stack.kill(part)
    assert first.result().for_now or first.result().good
    assert log.fulfil(wish).good
    scene.check()


def test_a_payment_is_settled_once_though_settlement_is_killed_in_the_middle(scene: Scene) -> None:
    wish = payment(scene.town)
    with holding(scene.stack, "payment", *account_of(scene.town, scene.town.people[1])) as hold:
        assert scene.log.fulfil(wish).good
        hold.wait()
        scene.stack.kill("payment")
    scene.town.people[0].settled(wish.told()["id"])
    scene.check()


def test_a_payment_is_settled_once_though_its_settlement_is_killed_before_it_knows(scene: Scene) -> None:
    wish, stack = payment(scene.town), scene.stack
    with ExitStack() as held:
        with holding(stack, "payment", *account_of(scene.town, scene.town.people[1])) as hold:
            assert scene.log.fulfil(wish).good
            hold.wait()
            held.enter_context(commits_held(stack))
        wait_until_committing(stack, "payment")
        freeze(stack, "payment")
    stack.kill("payment")
    scene.town.people[0].settled(wish.told()["id"])
    scene.check()


def test_an_event_is_in_the_stream_once_though_the_relay_is_killed_before_it_notes_that_it_is(scene: Scene) -> None:
    stack = scene.stack
    with stack.paused("nats"):
        assert scene.log.fulfil(payment(scene.town)).good
        hold = ExitStack()
        waiting = hold.enter_context(holding(stack, "payment", "SELECT FROM outbox FOR UPDATE"))
    with hold:
        waiting.wait()
        stack.kill("payment")
    scene.check()


@pytest.mark.parametrize("killed", ["payment", "nats"])
def test_an_event_is_not_lost_though_either_end_is_killed_while_it_is_published(scene: Scene, killed: str) -> None:
    stack = scene.stack
    freeze(stack, "nats")
    assert scene.log.fulfil(payment(scene.town)).good
    wait_until(lambda: relaying(stack), "nothing is published")
    stack.kill(killed)
    if killed != "nats":
        thaw(stack, "nats")
    scene.check()


def test_a_user_is_told_once_though_notification_is_killed_before_it_acknowledges(scene: Scene) -> None:
    wish, stack = payment(scene.town), scene.stack
    freeze(stack, "notification")
    scene.log.fulfil(wish)
    payment_id = wish.told()["id"]
    scene.town.people[0].settled(payment_id)
    wait_until(lambda: not in_outbox(stack), "the events are not published")
    with commits_held(stack):
        thaw(stack, "notification")
        wait_until_committing(stack, "notification")
        freeze(stack, "notification")
    wait_until(lambda: any(handled(stack, f"payment.{payment_id}.{number}") for number in (1, 2)), "nothing is handled")
    stack.kill("notification")
    scene.check()
