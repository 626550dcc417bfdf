"""That a book that is in order passes, and that each invariant finds what breaks it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.book import DEAD_LETTERS, Message
from tests.faults.invariants import answers, documents, events, money
from tests.faults.specimen import BILL, OTHER_SECRET, in_order, post, read

Break = Callable[[Any], object]
"""Spoils a book."""


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
    documents.every_upload_that_was_answered_is_a_document_once: {
        "lost": lambda book: book.documents.pop(),
        "from nowhere": lambda book: book.documents.append(book.documents[1] | {"id": "eve"}),
        "two keys": lambda book: book.wishes.extend([one for one in book.wishes if one.file == BILL]),
        "another file": on("documents", 1, sha256=""),
        "somebody else's": on("documents", 1, owner_id="eve"),
    },
    documents.every_document_is_read: {
        "waits for ever": on("documents", 1, state="PENDING"),
        "rejected": on("documents", 1, state="REJECTED"),
        "not told": lambda book: book.streams["document"].pop(),
        "another order": lambda book: book.streams["document"].append(read("bill", "ada", 1)),
    },
    documents.owners_are_told_of_their_documents_once: {
        "not told": lambda book: book.notifications.pop(),
        "twice": lambda book: book.notifications.append(book.notifications[-1]),
        "a stranger": lambda book: book.notifications[-1].update(user_id="eve"),
    },
    events.nothing_is_in_the_dead_letters: {
        "a letter": lambda book: book.streams[DEAD_LETTERS].append(Message("deadletter.notification", "", b"")),
    },
    events.every_event_of_a_subscriber_is_posted_under_one_id: {
        "not posted": lambda book: book.subscription.posts.pop(),
        "of nothing": lambda book: book.subscription.posts.append(post({"payment_id": "eve", "sequence": 1})),
        "another id": lambda book: book.subscription.posts.append(post(book.changes[0], webhook_id="x")),
        "another secret": lambda book: book.subscription.posts.append(post(book.changes[0], secret=OTHER_SECRET)),
        "still on its way": on("deliveries", 0, state="PENDING"),
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
