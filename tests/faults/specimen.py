"""A book that is in order, made by hand, to be spoiled."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from document.v1 import document_pb2
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2
from standardwebhooks import Webhook

from tests.edge.people import Person
from tests.faults.book import DEAD_LETTERS, Book, Message, Subscription
from tests.faults.log import Answer, Wish
from tests.traffic.receiver import Post

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
BILL = b"to be paid"
SECRET, OTHER_SECRET = (f"whsec_{base64.b64encode(of * 32).decode()}" for of in (b"a", b"b"))


def answer(content: dict[str, Any], status: int = 200, **more: Any) -> Answer:
    told: dict[str, Any] = {"reason": "", "location": "", "replayed": False, "retry_after": 0}
    told |= {"seconds": 0.1, "time": NOON} | more
    return Answer(status=status, content=json.dumps(content).encode(), **told)


def wish(kind: str, who: Person, cents: int, *answers: Answer, key: str = "", file: bytes = b"") -> Wish:
    return Wish(kind, who, "", {}, key, cents, file, list(answers))


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
        wish("upload", ADA, 0, away, answer({"id": "bill"}, 201), key="u", file=BILL),
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


def read(document_id: str, owner_id: str, sequence: int = 2) -> Message:
    event = document_pb2.DocumentEvent(
        document_id=document_id, sequence=sequence, owner_id=owner_id, state=document_pb2.Document.VERIFIED
    )
    subject = f"document.{document_id}"
    return Message(subject, f"{subject}.{sequence}", event.SerializeToString())


def event_id(change: dict[str, Any]) -> str:
    return f"payment.{change['payment_id']}.{change['sequence']}"


def post(change: dict[str, Any], secret: str = SECRET, webhook_id: str = "") -> Post:
    body = json.dumps({"data": {"paymentId": change["payment_id"], "sequence": change["sequence"]}})
    webhook_id = webhook_id or event_id(change)
    signature = Webhook(secret).sign(webhook_id, NOON, body)
    timestamp = str(int(NOON.timestamp()))
    headers = {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    return headers, body.encode()


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
        documents=[
            {"id": one, "kind": kind, "owner_id": "ada", "state": "VERIFIED", "sequence": 2}
            | {"sha256": hashlib.sha256(BILL).hexdigest()}
            for one, kind in (("passport", "PASSPORT"), ("bill", "PROOF_OF_ADDRESS"))
        ],
        notifications=[
            *(
                {"user_id": user, "payment_id": change["payment_id"], "create_time": change["create_time"]}
                | {"document_id": "", "kind": f"PAYMENT_{change['state']}"}
                for change in changes
                for user in (("ada", "grace") if change["state"] in moved else ("ada",))
            ),
            *(
                {"user_id": "ada", "payment_id": "", "create_time": NOON}
                | {"document_id": one, "kind": "DOCUMENT_VERIFIED"}
                for one in ("passport", "bill")
            ),
        ],
        deliveries=[{"event_id": event_id(change), "user_id": "ada", "state": "DELIVERED"} for change in changes],
        subscription=Subscription("ada", SECRET, [post(change) for change in changes]),
        outboxes={"payment": [], "user": [], "document": []},
        streams={
            "payment": messages,
            "user": [Message("user.ada", "user.ada.1", b"")],
            "document": [read("passport", "ada"), read("bill", "ada")],
            DEAD_LETTERS: [],
        },
        handled={
            "notification": [*(one.id for one in messages), "document.passport.2", "document.bill.2"],
            "compliance": ["user.ada.1"],
            "document": ["user.ada.1"],
        },
        sessions=[session],
        prepared=[],
    )
