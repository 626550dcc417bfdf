"""That a book that is in order passes, and that each invariant finds what breaks it."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2

from tests.edge.people import Person
from tests.faults import invariants
from tests.faults.book import DEAD_LETTERS, Book, Message
from tests.faults.invariants import answers, events, money
from tests.faults.log import Answer, Wish

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
ADA, GRACE, ADMIN = (Person(httpx.Client(), one, "", "") for one in ("ada", "grace", "admin"))
HISTORY = {  # cents, and the states of each payment, with what was refunded by then
    "settled": (100, [("AUTHORIZED", 0), ("SETTLED", 0)]),
    "invoiced": (70, [("AUTHORIZED", 0), ("SETTLED", 0)]),
    "refunded": (50, [("AUTHORIZED", 0), ("SETTLED", 0), ("SETTLED", 20), ("REFUNDED", 50)]),
    "cancelled": (900, [("IN_REVIEW", 0), ("CANCELLED", 0)]),
    "reviewed": (800, [("IN_REVIEW", 0)]),
    "declined": (9999, [("DECLINED", 0)]),
}
DEPOSIT = 2000
Break = Callable[[Any], object]
"""Spoils a book."""


def answer(content: dict[str, Any], status: int = 200, **more: Any) -> Answer:
    told: dict[str, Any] = {"reason": "", "location": "", "replayed": False, "retry_after": 0}
    told |= {"seconds": 0.1, "time": NOON} | more
    return Answer(status=status, content=json.dumps(content).encode(), **told)


def wish(kind: str, who: Person, cents: int, *answers: Answer, key: str = "") -> Wish:
    return Wish(kind, who, "", {}, key, cents, list(answers))


def told(payment_id: str, sequence: int) -> dict[str, Any]:
    state = HISTORY[payment_id][1][sequence - 1][0]
    return {"id": payment_id, "payeeId": "grace", "state": state, "etag": str(sequence)}


def wishes() -> list[Wish]:
    away = answer({}, 503, reason="SERVICE_UNAVAILABLE", retry_after=1)
    first = {one: answer(told(one, 1), 201, location=one) for one in HISTORY}
    again = answer(told("settled", 1), 201, location="settled", replayed=True)
    made = [wish("payment", ADA, HISTORY[one][0], first[one], key=one) for one in HISTORY if one != "invoiced"]
    made[0].answers += [away, again]
    return [
        *made,
        wish("deposit", ADMIN, DEPOSIT, away, answer({"id": "of-ada"}), key="d"),
        wish("invoice payment", ADA, 70, first["invoiced"], key="i"),
        wish("refund", GRACE, 20, answer(told("refunded", 3)), key="r1"),
        wish("refund", GRACE, 30, answer(told("refunded", 4)), key="r2"),
        wish("cancel", ADA, 0, answer(told("cancelled", 2))),
        wish("cancel", ADA, 0, answer({}, 400, reason="ILLEGAL_TRANSITION")),
    ]


def entries() -> list[dict[str, Any]]:
    moved = [("", "DEPOSIT", "outside", "of-ada", DEPOSIT)]
    moved += [(one, "PAYMENT", "of-ada", "of-grace", HISTORY[one][0]) for one in ("settled", "invoiced", "refunded")]
    moved += [("refunded", "REFUND", "of-grace", "of-ada", cents) for cents in (20, 30)]
    return [
        {
            "id": f"{number}{account}",
            "transaction_id": number,
            "account_id": account,
            "currency_code": "EUR",
            "amount": amount,
            "payment_id": payment_id or None,
            "kind": kind,
        }
        for number, (payment_id, kind, source, target, cents) in enumerate(moved)
        for account, amount in ((source, -cents), (target, cents))
    ]


def message(change: dict[str, Any]) -> Message:
    event = payment_pb2.PaymentEvent(
        payment_id=change["payment_id"],
        sequence=change["sequence"],
        state=payment_pb2.Payment.State.Value(change["state"]),
        payer_id="ada",
        payee_id="grace",
        amount=Money(currency_code="EUR", units=HISTORY[change["payment_id"]][0] // 100),
        refunded_amount=Money(currency_code="EUR", nanos=change["refunded"] * 10_000_000),
    )
    event.amount.nanos = HISTORY[change["payment_id"]][0] % 100 * 10_000_000
    subject = f"payment.{change['payment_id']}"
    return Message(subject, f"{subject}.{change['sequence']}", event.SerializeToString())


def in_order() -> Book:
    """A book that breaks nothing. Its rows may be changed."""
    changes = [
        {"payment_id": one, "sequence": sequence, "state": state, "state_reason": "", "refunded": refunded}
        | {"create_time": NOON + timedelta(seconds=sequence)}
        for one, (_, states) in HISTORY.items()
        for sequence, (state, refunded) in enumerate(states, 1)
    ]
    payments = [
        {"id": one, "payer_id": "ada", "payee_id": "grace", "amount": cents, "description": one}
        | {"payer_account_id": "of-ada", "payee_account_id": "of-grace", "sequence": len(states)}
        | {"state": states[-1][0], "refunded": states[-1][1], "invoice_id": "inv" if one == "invoiced" else None}
        for one, (cents, states) in HISTORY.items()
    ]
    accounts = [
        {"id": "of-ada", "clearing": False, "balance": DEPOSIT - 170, "reserved": 800},
        {"id": "of-grace", "clearing": False, "balance": 170, "reserved": 0},
        {"id": "outside", "clearing": True, "balance": -DEPOSIT, "reserved": 0},
    ]
    moved = {"SETTLED", "REFUNDED"}
    session = {"pid": 1, "usename": "payment", "state": "idle", "transaction_seconds": None, "advisory_locks": 0}
    messages = [message(change) for change in changes]
    return Book(
        wishes=wishes(),
        payments=payments,
        changes=changes,
        accounts=accounts,
        entries=entries(),
        invoices=[
            {"id": "inv", "state": "PAID", "payment_id": "invoiced"},
            {"id": "open", "state": "OPEN", "payment_id": None},
        ],
        notifications=[
            {"user_id": user, "payment_id": change["payment_id"], "create_time": change["create_time"]}
            for change in changes
            for user in (("ada", "grace") if change["state"] in moved else ("ada",))
        ],
        outboxes={"payment": [], "user": []},
        streams={"payment": messages, "user": [Message("user.ada", "user.ada.1", b"")], DEAD_LETTERS: []},
        handled={"notification": [one.id for one in messages], "compliance": ["user.ada.1"]},
        sessions=[session],
        prepared=[],
    )


def test_a_book_in_order_breaks_nothing() -> None:
    assert invariants.violations(in_order()) == {}


def on(table: str, place: int, **values: object) -> Break:
    """Changes a row."""
    return lambda book: getattr(book, table)[place].update(values)


def retold(place: int, **values: object) -> Break:
    """Changes an event of payment's stream."""

    def retell(book: Any) -> None:
        stream = book.streams["payment"]
        event = stream[place].payment_event()
        for name, value in values.items():
            setattr(event, name, value)
        stream[place] = dataclasses.replace(stream[place], data=event.SerializeToString())

    return retell


def answered(**values: Any) -> Break:
    """Adds an answer to the first wish, like the last but for these values."""

    def answer_again(book: Any) -> None:
        answers = book.wishes[0].answers
        answers.append(dataclasses.replace(answers[-1], **values))

    return answer_again


def only_errors(book: Any) -> None:
    """Takes the answers from the first wish that stand."""
    book.wishes[0].answers[:] = book.wishes[0].answers[1:2]


BREAKS: dict[invariants.Invariant, dict[str, Break]] = {
    answers.every_wish_is_answered: {"only errors": only_errors},
    answers.errors_are_documented: {
        "a 500": answered(status=500, reason="INTERNAL"),
        "no Retry-After": answered(status=503, reason="SERVICE_UNAVAILABLE"),
        "late": answered(seconds=11.0),
        "a payment refused": answered(status=400, reason="ILLEGAL_TRANSITION"),
    },
    answers.one_key_has_one_answer: {
        "another body": answered(content=b"{}"),
        "another place": answered(location=""),
        "done again": answered(replayed=False),
    },
    answers.every_payment_that_was_answered_exists_once: {
        "lost": lambda book: book.payments.pop(0),
        "from nowhere": lambda book: book.wishes.pop(0),
        "two keys": lambda book: book.wishes.append(book.wishes[0]),
        "another amount": on("payments", 0, amount=101),
    },
    answers.no_key_has_two_payments: {"doubled": lambda book: book.payments.append(book.payments[0])},
    answers.every_deposit_that_was_answered_was_made_once: {
        "doubled": lambda book: book.entries.append(book.entries[1]),
        "lost": lambda book: book.entries.pop(1),
    },
    answers.every_change_that_was_answered_is_in_the_history: {
        "lost": lambda book: book.changes.pop(),
        "otherwise": on("changes", 0, state="IN_REVIEW"),
    },
    answers.every_refund_that_was_answered_was_made_once: {
        "doubled": on("payments", 0, refunded=20),
        "lost": on("payments", 2, refunded=20),
    },
    money.the_ledger_sums_to_zero: {
        "one side": on("entries", 2, amount=-99),
        "another currency": on("entries", 2, currency_code="USD"),
        "another payment": on("entries", 2, payment_id="refunded"),
    },
    money.balances_are_the_sums_of_their_entries: {
        "balance": on("accounts", 1, balance=171),
        "reserved": on("accounts", 0, reserved=0),
        "overdrawn": on("accounts", 1, balance=-1),
    },
    money.money_moved_as_payments_say: {
        "nothing moved": lambda book: book.entries.__delitem__(slice(2, 4)),
        "moved though declined": on("payments", 0, state="DECLINED"),
        "to a stranger": on("entries", 3, account_id="outside"),
    },
    money.every_accepted_payment_is_terminal: {"not settled": on("payments", 0, state="AUTHORIZED")},
    money.every_history_is_a_legal_path: {
        "a gap": lambda book: book.changes.pop(5),
        "no way": on("changes", 0, state="DECLINED"),
        "another end": on("payments", 0, state="REFUNDED"),
    },
    events.every_change_is_in_the_stream_once: {
        "in the outbox": lambda book: book.outboxes["user"].append({"message_id": "user.ada.2"}),
        "twice": lambda book: book.streams["payment"].append(book.streams["payment"][-1]),
        "not there": lambda book: book.streams["payment"].pop(),
        "of nothing": lambda book: book.changes.pop(),
        "another state": retold(0, state=2),
        "another payer": retold(0, payer_id="eve"),
        "another order": lambda book: book.streams["payment"].reverse(),
    },
    events.every_event_is_handled_once: {
        "not handled": lambda book: book.handled["compliance"].pop(),
        "handled again": lambda book: book.handled["notification"].append("payment.settled.1"),
    },
    events.everybody_is_told_of_every_change_once: {
        "the payer is not": lambda book: book.notifications.pop(0),
        "the payee is not": lambda book: book.notifications.pop(2),
        "twice": lambda book: book.notifications.append(book.notifications[0]),
        "a stranger": lambda book: book.notifications.append(book.notifications[0] | {"user_id": "eve"}),
    },
    money.an_invoice_is_paid_when_its_payment_is_settled: {
        "not paid": on("invoices", 0, state="OPEN"),
        "paid too early": on("payments", 1, state="AUTHORIZED"),
        "unknown": on("invoices", 0, state="OPEN", payment_id=None),
    },
    events.nothing_is_in_the_dead_letters: {
        "a letter": lambda book: book.streams[DEAD_LETTERS].append(Message("deadletter.notification", "", b"")),
    },
    invariants.nothing_is_left_behind: {
        "a transaction": on("sessions", 0, transaction_seconds=6.0),
        "a lock": on("sessions", 0, advisory_locks=1),
        "connections": lambda book: book.sessions.extend(book.sessions * 12),
        "prepared": lambda book: book.prepared.append({"gid": "1"}),
    },
}


@pytest.mark.parametrize(
    ("invariant", "break_it"),
    [
        pytest.param(invariant, break_it, id=f"{invariant.__name__}: {what}")
        for invariant, breaks in BREAKS.items()
        for what, break_it in breaks.items()
    ],
)
def test_what_breaks_an_invariant_is_found(invariant: invariants.Invariant, break_it: Break) -> None:
    book = in_order()
    break_it(book)
    assert list(invariant(book))


def test_every_invariant_is_shown_to_fail() -> None:
    assert set(BREAKS) == set(invariants.INVARIANTS)
