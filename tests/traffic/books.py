"""What must be true of payments when all is quiet again, whatever happened to the system in between."""

from collections import Counter
from decimal import Decimal

from tests.edge.people import Json, Person
from tests.traffic.customers import DEPOSIT, Customers
from tests.waiting import wait_until


def check(customers: Customers) -> None:
    """Checks that every acknowledged payment is there once, is settled, moved its money once, and was told of."""
    paid = {payment_id: cents for customer in customers.all for payment_id, cents in customer.paid.items()}
    wait_until(lambda: _states(customers.payee) == {"SETTLED"}, "not all payments are settled")
    for customer in customers.all:
        _check_party(customer.person, customer.paid, sign=-1, deposit=DEPOSIT * 100)
        _check_told(customer.person, [(kind, one) for one in customer.paid for kind in ("AUTHORIZED", "SETTLED")])
    _check_party(customers.payee, paid, sign=1, deposit=0)
    _check_told(customers.payee, [("SETTLED", one) for one in paid])


def _states(person: Person) -> set[str]:
    return {payment["state"] for payment in _all(person, "payments")}


def _check_party(person: Person, paid: dict[str, int], sign: int, deposit: int) -> None:
    """Checks the payments of somebody, and the account. Amounts are in cents."""
    made = [(payment["id"], _cents(payment["amount"])) for payment in _all(person, "payments")]
    assert sorted(made) == sorted(paid.items())
    account = person.account()
    balance = deposit + sign * sum(paid.values())
    assert [_cents(account[of]) for of in ("balance", "available", "reserved")] == [balance, balance, 0]
    entries = [
        (entry["paymentId"], _cents(entry["amount"]))
        for entry in _all(person, "entries", f"accounts/{account['id']}/entries")
        if entry["kind"] == "PAYMENT"
    ]
    assert sorted(entries) == sorted((payment_id, sign * cents) for payment_id, cents in paid.items())


def _check_told(person: Person, changes: list[tuple[str, str]]) -> None:
    """Checks that somebody was told of each change of a payment, once. Waits for that: events come after."""
    expected = Counter((f"PAYMENT_{state}", payment_id) for state, payment_id in changes)
    wait_until(lambda: not expected - _told(person), "somebody was not told")
    assert _told(person) == expected


def _told(person: Person) -> Counter[tuple[str, str]]:
    """What somebody was told of payments."""
    return Counter((one["kind"], one["paymentId"]) for one in _all(person, "notifications") if one["paymentId"])


def _all(person: Person, what: str, path: str = "") -> list[Json]:
    """Returns a list to its last page."""
    found: list[Json] = []
    token = ""
    while True:
        query = {"pageSize": "1000", "pageToken": token}
        page = person.client.get(f"/api/v1/{path or what}", params=query).raise_for_status().json()
        found += page[what]
        token = page["nextPageToken"]
        if not token:
            return found


def _cents(amount: Json) -> int:
    return int((Decimal(amount["units"]) + Decimal(amount["nanos"]) / 10**9) * 100)
