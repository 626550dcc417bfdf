"""What clients were answered is so: nothing is lost, nothing is done twice."""

from collections import Counter
from collections.abc import Iterator

from tests.faults.book import Book
from tests.faults.log import Wish

LONGEST_SECONDS = 10.0
"""How long any answer may take."""
PAYING = {"payment", "invoice payment"}
"""The wishes that make a payment."""
DECIDING = {"cancel", "refund", "approve", "decline"}
"""The wishes that change one."""
LATE = {"cancel", "refund"}
"""Of these, those that may come too late or too early. The others are refused only when they were granted before."""
_ILLEGAL = {(400, "ILLEGAL_TRANSITION")}
_REFUSALS = {**dict.fromkeys(DECIDING, _ILLEGAL), "void": {(400, "INVOICE_NOT_OPEN")}}


def every_wish_is_answered(book: Book) -> Iterator[str]:
    """Whatever is killed, a client that goes on asking gets an answer that stands."""
    for wish in book.wishes:
        if wish.answers and not wish.settled:
            yield f"never answered: {wish}"


def errors_are_documented(book: Book) -> Iterator[str]:
    """Clients see what says that something is away or late for now, and in time; refusals only where they are due."""
    for wish in book.wishes:
        unsure = False
        for answer in wish.answers:
            refused = (answer.status, answer.reason) in _REFUSALS.get(wish.kind, ()) and (unsure or wish.kind in LATE)
            unsure = unsure or answer.for_now
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


def _made(book: Book) -> list[Wish]:
    """Returns the wishes that made a payment, by their answers."""
    return [wish for wish in book.wishes if wish.kind in PAYING and wish.granted]
