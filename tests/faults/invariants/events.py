"""What happened is told: once in the stream, once to each consumer, once to each user."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2
from standardwebhooks import Webhook

from tests.faults.book import CONSUMERS, DEAD_LETTERS, PUBLISHERS, Book, Message, Row
from tests.faults.invariants.money import MOVED


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
    for consumer, streams in CONSUMERS.items():
        handled = Counter(book.handled[consumer])
        published = Counter({message.id for stream in streams for message in book.streams[stream]})
        for message_id in published - handled:
            yield f"{consumer} has not handled {message_id}"
        for message_id in handled - published:
            yield f"{consumer} has handled {message_id} {handled[message_id]} times, which is once too often"


def everybody_is_told_of_every_change_once(book: Book) -> Iterator[str]:
    """A change is told to its payer, one that moved money to its payee too; to nobody twice, and to no stranger."""
    payments = {row["id"]: row for row in book.payments}
    needed, allowed = Counter[tuple[object, ...]](), Counter[tuple[object, ...]]()
    for change in book.changes:
        payment = payments[change["payment_id"]]
        told_to = [(payment[party], payment["id"], change["create_time"]) for party in ("payer_id", "payee_id")]
        needed.update(told_to if change["state"] in MOVED else told_to[:1])
        allowed.update(told_to)  # two changes may be of the same moment, when the clock was set back
    told: Counter[tuple[object, ...]] = Counter(
        (row["user_id"], row["payment_id"], row["create_time"]) for row in book.notifications if row["payment_id"]
    )
    for one in needed - told:
        yield f"not told of a change: {one}"
    for one in told - allowed:
        yield f"told {told[one]} times of a change, or a stranger: {one}"


def every_event_of_a_subscriber_is_posted_under_one_id(book: Book) -> Iterator[str]:
    """A webhook gets every event of its user's payments, signed, and what comes again comes under the same id."""
    who = book.subscription
    own = {row["id"] for row in book.payments if who.user_id in {row["payer_id"], row["payee_id"]}}
    expected = {f"payment.{row['payment_id']}.{row['sequence']}" for row in book.changes if row["payment_id"] in own}
    delivered = Counter(row["event_id"] for row in book.deliveries if row["state"] == "DELIVERED")
    if delivered != Counter(expected):
        yield f"{len(expected)} events, {delivered.total()} of them delivered, by the log"
    posted: dict[str, set[tuple[str, bytes]]] = defaultdict(set)
    for headers, body in list(who.posts):
        time = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        signature = Webhook(who.secret).sign(headers["webhook-id"], time, body.decode())
        if signature not in headers["webhook-signature"].split():
            yield f"not signed: {body!r}"
        event = json.loads(body)["data"]
        posted[f"payment.{event['paymentId']}.{event['sequence']}"].add((headers["webhook-id"], body))
    for event_id in expected ^ posted.keys():
        yield f"{event_id} was not posted, or never happened"
    for event_id, forms in posted.items():
        if len(forms) > 1:
            yield f"{event_id} was posted as {sorted(forms)}"


def nothing_is_in_the_dead_letters(book: Book) -> Iterator[str]:
    """For nothing is poisoned here."""
    for message in book.streams[DEAD_LETTERS]:
        yield f"a dead letter: {message}"


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
