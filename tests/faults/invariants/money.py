"""Payments, invoices and the ledger agree."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.faults.book import Book, Row

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
