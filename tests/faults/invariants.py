"""What must be true when all is quiet again, whatever was killed. Each is a function that tells what breaks it.

They hold for everything that ever happened to a system: of the clients' log nothing may be missing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from google.protobuf.message import DecodeError
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2

from services.runtime.postgres import POOL_SIZE
from tests.faults.book import CONSUMERS, DEAD_LETTERS, PUBLISHERS, Book, Message, Row
from tests.faults.log import Wish

LONGEST_SECONDS = 10.0
"""How long any answer may take."""
LONGEST_TRANSACTION_SECONDS = 5.0
"""Of a service that has nothing to do."""
OTHER_SESSIONS = 2
"""How many connections a service may have beside its pool's."""

PAYING = {"payment", "invoice payment"}
"""The wishes that make a payment."""
DECIDING = {"cancel", "refund", "approve", "decline"}
"""The wishes that change one, and may come too late."""
OPEN = {"AUTHORIZED", "IN_REVIEW"}
MOVED = {"SETTLED", "REFUNDED"}
STEPS: dict[str, set[str]] = {
    "": {"AUTHORIZED", "IN_REVIEW", "DECLINED"},
    "IN_REVIEW": {"AUTHORIZED", "DECLINED", "CANCELLED"},
    "AUTHORIZED": {"SETTLED", "FAILED", "CANCELLED"},
    "SETTLED": {"SETTLED", "REFUNDED"},
    "DECLINED": set(),
    "FAILED": set(),
    "CANCELLED": set(),
    "REFUNDED": set(),
}
"""Where a payment may go from a state; from none, at first."""

Invariant = Callable[[Book], Iterator[str]]


def every_wish_is_answered(book: Book) -> Iterator[str]:
    """Whatever is killed, a client that goes on asking gets an answer that stands."""
    for wish in book.wishes:
        if wish.answers and not wish.settled:
            yield f"never answered: {wish}"


def errors_are_documented(book: Book) -> Iterator[str]:
    """Clients see what says that something is away or late for now, and in time; refusals only where they are meant."""
    for wish in book.wishes:
        for answer in wish.answers:
            refused = wish.kind in DECIDING and (answer.status, answer.reason) == (400, "ILLEGAL_TRANSITION")
            if not (answer.good or answer.for_now or refused):
                yield f"an answer that no client should see, {answer.status} {answer.reason}: {wish}"
            if answer.status in {409, 503} and not answer.retry_after:
                yield f"no Retry-After with {answer.status} {answer.reason}: {wish}"
            if answer.seconds > LONGEST_SECONDS:
                yield f"an answer after {answer.seconds:.1f} s: {wish}"


def one_key_has_one_answer(book: Book) -> Iterator[str]:
    """All answers to one key are the same byte for byte, and at most one is not marked as a repetition."""
    for wish in book.wishes:
        if wish.key:
            if len({(one.status, one.location, one.content) for one in wish.granted}) > 1:
                yield f"unequal answers {[one.content for one in wish.granted]}: {wish}"
            if sum(not one.replayed for one in wish.granted) > 1:
                yield f"carried out again, by its answers: {wish}"


def every_payment_that_was_answered_exists_once(book: Book) -> Iterator[str]:
    """Clients' payments and those of the database are the same: none is lost, none doubled, none from nowhere."""
    answered: dict[str, Wish] = {}
    for wish in _made(book):
        payment_id = wish.told()["id"]
        if payment_id in answered:
            yield f"payment {payment_id} was the answer to two keys: {wish}; {answered[payment_id]}"
        answered[payment_id] = wish
    kept = {row["id"]: row for row in book.payments}
    for payment_id in answered.keys() - kept.keys():
        yield f"payment {payment_id} is lost: {answered[payment_id]}"
    for payment_id in kept.keys() - answered.keys():
        yield f"nobody was answered payment {payment_id}, {dict(kept[payment_id])}"
    for payment_id in kept.keys() & answered.keys():
        row, wish, told = kept[payment_id], answered[payment_id], answered[payment_id].told()
        if (row["payer_id"], row["payee_id"], row["amount"]) != (wish.who.id, told["payeeId"], wish.cents):
            yield f"payment {payment_id} is not what was asked for: {dict(row)}: {wish}"


def no_key_has_two_payments(book: Book) -> Iterator[str]:
    """A payment carries its key as its description."""
    for key, number in Counter(row["description"] for row in book.payments).items():
        if number > 1:
            yield f"key {key} has {number} payments"


def every_deposit_that_was_answered_was_made_once(book: Book) -> Iterator[str]:
    """What came into each account is what the treasurer's clients were answered."""
    wished, made = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for wish in book.wishes:
        if wish.kind == "deposit" and wish.granted:
            wished[wish.told()["id"], wish.cents] += 1
    outside = {row["id"] for row in book.accounts if row["clearing"]}
    for row in book.entries:
        if row["kind"] == "DEPOSIT" and row["account_id"] not in outside:
            made[row["account_id"], row["amount"]] += 1
    for (account_id, cents), number in ((wished - made) + (made - wished)).items():
        was = f"asked for {wished[account_id, cents]} times, made {made[account_id, cents]} times"
        yield f"{number} too few or too many: deposit of {cents} cents into {account_id} {was}"


def every_change_that_was_answered_is_in_the_history(book: Book) -> Iterator[str]:
    """What a client was told of a payment has been so: state and sequence, which is the etag."""
    history = {(row["payment_id"], row["sequence"]): row["state"] for row in book.changes}
    for wish in book.wishes:
        if wish.kind in PAYING | DECIDING:
            for answer in wish.granted:
                told = answer.json()
                if history.get((told["id"], int(told["etag"]))) != told["state"]:
                    yield f"{told['id']} never was {told['state']} at {told['etag']}: {wish}"


def every_refund_that_was_answered_was_made_once(book: Book) -> Iterator[str]:
    """Of each payment so much went back as clients were answered."""
    wished = Counter[str]()
    for wish in book.wishes:
        if wish.kind == "refund" and wish.granted:
            wished[wish.told()["id"]] += wish.cents
    for row in book.payments:
        if row["refunded"] != wished[row["id"]]:
            yield f"of payment {row['id']} {row['refunded']} cents were refunded, {wished[row['id']]} were asked for"


def the_ledger_sums_to_zero(book: Book) -> Iterator[str]:
    """Per currency, per transaction, and per payment."""
    for by in ("currency_code", "transaction_id", "payment_id"):
        sums = Counter[tuple[str, str]]()
        for row in book.entries:
            sums[row[by], row["currency_code"]] += row["amount"]
        for (of, currency), total in sums.items():
            if total:
                yield f"the entries of {by} {of} sum to {total} {currency}"


def balances_are_the_sums_of_their_entries(book: Book) -> Iterator[str]:
    """What an account holds has come there by entries, what is reserved is that of its open payments, and it has it."""
    sums, reserved = Counter[str](), Counter[str]()
    for row in book.entries:
        sums[row["account_id"]] += row["amount"]
    for row in book.payments:
        if row["state"] in OPEN:
            reserved[row["payer_account_id"]] += row["amount"]
    for row in book.accounts:
        if row["balance"] != sums[row["id"]]:
            yield f"account {row['id']} has a balance of {row['balance']}, its entries sum to {sums[row['id']]}"
        if row["reserved"] != reserved[row["id"]]:
            yield f"account {row['id']} has {row['reserved']} reserved, its open payments {reserved[row['id']]}"
        if not row["clearing"] and row["balance"] < row["reserved"]:
            yield f"account {row['id']} is overdrawn: {dict(row)}"


def money_moved_as_payments_say(book: Book) -> Iterator[str]:
    """A settled payment has moved its amount once and what was refunded of it back; any other has moved nothing."""
    moved: dict[tuple[str, str], int] = defaultdict(int)
    for row in book.entries:
        if row["payment_id"]:
            moved[row["payment_id"], row["account_id"]] += row["amount"]
    for row in book.payments:
        net = row["amount"] - row["refunded"] if row["state"] in MOVED else 0
        of_payer = moved.pop((row["id"], row["payer_account_id"]), 0)
        of_payee = moved.pop((row["id"], row["payee_account_id"]), 0)
        if (of_payer, of_payee) != (-net, net):
            yield f"payment {row['id']} moved {of_payer} and {of_payee}, not {net}: {dict(row)}"
    for (payment_id, account_id), amount in moved.items():
        yield f"payment {payment_id} moved {amount} on account {account_id}, which is neither party's"


def every_accepted_payment_is_terminal(book: Book) -> Iterator[str]:
    """Reviews aside."""
    for row in book.payments:
        if row["state"] == "AUTHORIZED":
            yield f"payment {row['id']} is not settled: {dict(row)}"


def every_history_is_a_legal_path(book: Book) -> Iterator[str]:
    """A payment's changes are numbered from 1 without gaps, go where they may, and end where it stands."""
    histories: dict[str, list[Row]] = defaultdict(list)
    for row in book.changes:
        histories[row["payment_id"]].append(row)
    for payment in book.payments:
        history = histories[payment["id"]]
        if [row["sequence"] for row in history] != list(range(1, payment["sequence"] + 1)):
            yield f"payment {payment['id']}, at {payment['sequence']}, has {[row['sequence'] for row in history]}"
        states = ["", *(row["state"] for row in history)]
        if any(after not in STEPS[before] for before, after in pairwise(states)):
            yield f"payment {payment['id']} went {states[1:]}"
        if states[-1] != payment["state"]:
            yield f"payment {payment['id']} is {payment['state']}, its history says {states[-1]}"


def every_change_is_in_the_stream_once(book: Book) -> Iterator[str]:
    """The outboxes are empty; the stream of payment has each change once, as it was, a payment's in their order."""
    for name, rows in book.outboxes.items():
        for row in rows:
            yield f"{row['message_id']} has not left the outbox of {name}"
    for name in PUBLISHERS:
        for message_id, number in Counter(one.id for one in book.streams[name]).items():
            if number > 1:
                yield f"{message_id} is in the stream {number} times"
    changes = {f"payment.{row['payment_id']}.{row['sequence']}": row for row in book.changes}
    payments = {row["id"]: row for row in book.payments}
    messages = {message.id: message for message in book.streams["payment"]}
    for message_id in changes.keys() - messages.keys():
        yield f"{message_id} is not in the stream: {dict(changes[message_id])}"
    for message_id in messages.keys() - changes.keys():
        yield f"nothing happened that the stream tells: {messages[message_id]}"
    for message_id in messages.keys() & changes.keys():
        change = changes[message_id]
        if not _tells(messages[message_id], payments[change["payment_id"]], change):
            yield f"the stream tells {messages[message_id]}, but there was {dict(change)}"
    latest: dict[str, int] = defaultdict(int)
    for message in book.streams["payment"]:
        sequence = int(message.id.rpartition(".")[2])
        if sequence < latest[message.subject]:
            yield f"{message.id} came after {latest[message.subject]}"
        latest[message.subject] = sequence


def every_event_is_handled_once(book: Book) -> Iterator[str]:
    """What consumers have noted as handled is what is in the streams."""
    for consumer, stream in CONSUMERS.items():
        handled = Counter(book.handled[consumer])
        published = Counter({message.id for message in book.streams[stream]})
        for message_id in published - handled:
            yield f"{consumer} has not handled {message_id}"
        for message_id in handled - published:
            yield f"{consumer} has handled {message_id} {handled[message_id]} times, which is once too often"


def everybody_is_told_of_every_change_once(book: Book) -> Iterator[str]:
    """A change is told to its payer, one that moved money to its payee too; to nobody twice, and to no stranger."""
    payments = {row["id"]: row for row in book.payments}
    needed, allowed = set(), set()
    for change in book.changes:
        payment = payments[change["payment_id"]]
        told_to = [(payment[party], payment["id"], change["create_time"]) for party in ("payer_id", "payee_id")]
        needed.update(told_to if change["state"] in MOVED else told_to[:1])
        allowed.update(told_to)
    told = Counter((row["user_id"], row["payment_id"], row["create_time"]) for row in book.notifications)
    for one in needed - told.keys():
        yield f"not told of a change: {one}"
    for one, number in told.items():
        if number > 1 or one not in allowed:
            yield f"told {number} times of a change, or a stranger: {one}"


def an_invoice_is_paid_when_its_payment_is_settled(book: Book) -> Iterator[str]:
    """And only then. An open one refers to the payment under way, if there is any; no other payment is for it."""
    payments = {row["id"]: row for row in book.payments}
    for invoice in book.invoices:
        state = payments[invoice["payment_id"]]["state"] if invoice["payment_id"] else ""
        if state not in {"OPEN": {"", *OPEN}, "PAID": MOVED, "VOID": {""}}[invoice["state"]]:
            yield f"invoice {invoice['id']} is {invoice['state']}, its payment {state or 'none'}"
    paid_by = {invoice["id"]: invoice["payment_id"] for invoice in book.invoices}
    for payment in book.payments:
        invoice_id = payment["invoice_id"]
        if invoice_id and payment["state"] in OPEN | MOVED and paid_by[invoice_id] != payment["id"]:
            yield f"invoice {invoice_id} does not know of its payment {payment['id']}"


def nothing_is_in_the_dead_letters(book: Book) -> Iterator[str]:
    """For nothing is poisoned here."""
    for message in book.streams[DEAD_LETTERS]:
        yield f"a dead letter: {message}"


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
    every_wish_is_answered,
    errors_are_documented,
    one_key_has_one_answer,
    every_payment_that_was_answered_exists_once,
    no_key_has_two_payments,
    every_deposit_that_was_answered_was_made_once,
    every_change_that_was_answered_is_in_the_history,
    every_refund_that_was_answered_was_made_once,
    the_ledger_sums_to_zero,
    balances_are_the_sums_of_their_entries,
    money_moved_as_payments_say,
    every_accepted_payment_is_terminal,
    every_history_is_a_legal_path,
    every_change_is_in_the_stream_once,
    every_event_is_handled_once,
    everybody_is_told_of_every_change_once,
    an_invoice_is_paid_when_its_payment_is_settled,
    nothing_is_in_the_dead_letters,
    nothing_is_left_behind,
)


def violations(book: Book) -> dict[str, list[str]]:
    """Returns what breaks the invariants, by their names; of one that holds, nothing."""
    found: Mapping[str, list[str]] = {invariant.__name__: list(invariant(book)) for invariant in INVARIANTS}
    return {name: broken for name, broken in found.items() if broken}


def _made(book: Book) -> list[Wish]:
    """Returns the wishes that made a payment, by their answers."""
    return [wish for wish in book.wishes if wish.kind in PAYING and wish.granted]


def _tells(message: Message, payment: Row, change: Row) -> bool:
    """Tells whether an event is the one of a change."""
    try:
        event = message.payment_event()
    except DecodeError:
        return False
    told = (event.payment_id, event.sequence, payment_pb2.Payment.State.Name(event.state), event.state_reason)
    parties = (event.payer_id, event.payee_id, _cents(event.amount), _cents(event.refunded_amount))
    return told == (payment["id"], *(change[of] for of in ("sequence", "state", "state_reason"))) and parties == (
        *(payment[of] for of in ("payer_id", "payee_id", "amount")),
        change["refunded"],
    )


def _cents(amount: Money) -> int:
    return int(amount.units * 100 + amount.nanos // 10_000_000)
