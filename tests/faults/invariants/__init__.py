"""What must be true when all is quiet again, whatever was killed. Each is a function that tells what breaks it.

They hold for everything that ever happened to a system: of the clients' log nothing may be missing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from services.runtime.postgres import POOL_SIZE
from tests.faults.book import Book
from tests.faults.invariants import answers, documents, events, money

LONGEST_TRANSACTION_SECONDS = 5.0
"""Of a service that has nothing to do."""
OTHER_SESSIONS = 2
"""How many connections a service may have beside its pool's."""

Invariant = Callable[[Book], Iterator[str]]


def nothing_is_left_behind(book: Book) -> Iterator[str]:
    """No transaction, no lock and no connection of the dead, and of the living no more than their pools'."""
    for row in book.sessions:
        if (row["transaction_seconds"] or 0) > LONGEST_TRANSACTION_SECONDS:
            yield f"a transaction is open: {dict(row)}"
        if row["advisory_locks"] and row["state"] == "idle":
            yield f"an idle session holds a lock: {dict(row)}"
    for user, number in Counter(row["usename"] for row in book.sessions).items():
        if number > POOL_SIZE + OTHER_SESSIONS:
            yield f"{user} has {number} connections"
    for row in book.prepared:
        yield f"a prepared transaction: {dict(row)}"


INVARIANTS: tuple[Invariant, ...] = (
    answers.every_wish_is_answered,
    answers.errors_are_documented,
    answers.one_key_has_one_answer,
    answers.every_payment_that_was_answered_exists_once,
    answers.no_key_has_two_payments,
    answers.every_deposit_that_was_answered_was_made_once,
    answers.every_change_that_was_answered_is_in_the_history,
    answers.every_refund_that_was_answered_was_made_once,
    money.the_ledger_sums_to_zero,
    money.balances_are_the_sums_of_their_entries,
    money.money_moved_as_payments_say,
    money.every_accepted_payment_is_terminal,
    money.every_history_is_a_legal_path,
    events.every_change_is_in_the_stream_once,
    events.every_event_is_handled_once,
    events.everybody_is_told_of_every_change_once,
    money.an_invoice_is_paid_when_its_payment_is_settled,
    events.every_event_of_a_subscriber_is_posted_under_one_id,
    documents.every_upload_that_was_answered_is_a_document_once,
    documents.every_document_is_read,
    documents.owners_are_told_of_their_documents_once,
    events.nothing_is_in_the_dead_letters,
    nothing_is_left_behind,
)


def violations(book: Book) -> dict[str, list[str]]:
    """Returns what breaks the invariants, by their names; of one that holds, nothing."""
    found: Mapping[str, list[str]] = {invariant.__name__: list(invariant(book)) for invariant in INVARIANTS}
    return {name: broken for name, broken in found.items() if broken}
