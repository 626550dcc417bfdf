"""An invoice through the real edge: how its payee and its payer handle it over REST."""

import secrets
from datetime import UTC, datetime, timedelta

import httpx

from tests.edge.contract.edge import reason_of
from tests.edge.people import Json, People, Person

DUE = datetime.now(UTC).date() + timedelta(days=14)


def issue(payee: Person, payer: Person, units: int = 20, quantity: int = 2) -> httpx.Response:
    line = {"description": "Tuning", "quantity": quantity, "unitAmount": {"currencyCode": "EUR", "units": str(units)}}
    due = {"year": DUE.year, "month": DUE.month, "day": DUE.day}
    body = {"payerId": payer.id, "lines": [line], "dueDate": due, "description": "Piano, May"}
    return payee.client.post("/api/v1/invoices", json=body)


def pay(payer: Person, invoice: Json, key: str, etag: str = "") -> httpx.Response:
    headers = {"idempotency-key": key}
    return payer.client.post(f"/api/v1/invoices/{invoice['id']}:pay", json={"etag": etag}, headers=headers)


def test_an_invoice_from_its_issue_to_its_payment(people: People) -> None:
    payer, payee = people.payer(100), people.sign_up("Grace Hopper", "NL")
    created = issue(payee, payer)
    invoice = created.json()
    assert created.status_code == 201
    path = f"/api/v1/invoices/{invoice['id']}"
    assert created.headers["location"] == path
    assert (invoice["state"], invoice["amount"]) == ("OPEN", {"currencyCode": "EUR", "units": "40", "nanos": 0})
    assert payer.client.get(path).json() == invoice
    asked = payer.client.get("/api/v1/invoices", params={"state": "OPEN"}).json()["invoices"]
    assert [one["id"] for one in asked] == [invoice["id"]]

    paid = pay(payer, invoice, "rent", etag=invoice["etag"])
    payment = paid.json()
    assert (paid.status_code, payment["state"], payment["invoiceId"]) == (200, "AUTHORIZED", invoice["id"])
    payer.settled(payment["id"])
    settled = payee.client.get(path).json()
    assert (settled["state"], settled["paymentId"]) == ("PAID", payment["id"])
    assert payee.account()["available"]["units"] == "40"

    again = pay(payer, invoice, "rent", etag=invoice["etag"])
    assert (again.content, again.headers["idempotent-replayed"]) == (paid.content, "true")
    late = pay(payer, invoice, secrets.token_hex())
    assert (late.status_code, reason_of(late)) == (400, "INVOICE_NOT_OPEN")
    assert payer.account()["available"]["units"] == "60"


def test_an_invoice_is_taken_back_by_its_payee_alone(people: People) -> None:
    payer, payee, stranger = people.sign_up(), people.sign_up(), people.sign_up()
    path = f"/api/v1/invoices/{issue(payee, payer).json()['id']}"
    assert stranger.client.get(path).status_code == 403
    for who, status in ((stranger, 403), (payer, 403), (payee, 200), (payee, 400)):
        assert who.client.post(f"{path}:void", json={}).status_code == status
    assert payer.client.get(path).json()["state"] == "VOID"
    assert payee.client.get("/api/v1/invoices", params={"state": "OPEN"}).json()["invoices"] == []


def test_paying_an_invoice_needs_a_key_and_its_version(people: People) -> None:
    payer, payee = people.payer(100), people.sign_up()
    invoice = issue(payee, payer).json()
    keyless = payer.client.post(f"/api/v1/invoices/{invoice['id']}:pay", json={})
    assert (keyless.status_code, reason_of(keyless)) == (400, "IDEMPOTENCY_KEY_REQUIRED")
    stale = pay(payer, invoice, secrets.token_hex(), etag="0")
    assert (stale.status_code, reason_of(stale)) == (409, "ETAG_MISMATCH")
    first = pay(payer, invoice, secrets.token_hex())
    second = pay(payer, invoice, secrets.token_hex())
    assert (first.status_code, second.status_code) == (200, 400)
    assert reason_of(second) in ("INVOICE_PAYMENT_UNDER_WAY", "INVOICE_NOT_OPEN")


def test_a_page_of_the_longest_invoices_fits_in_an_answer(people: People) -> None:
    payee, payer = people.sign_up(), people.sign_up()
    price = {"currencyCode": "EUR", "units": "1"}
    lines = [{"description": "\U0001d11e" * 500, "unitAmount": price}] * 100  # a clef: four bytes
    due = {"year": DUE.year, "month": DUE.month, "day": DUE.day}
    body = {"payerId": payer.id, "lines": lines, "dueDate": due, "description": "Opera"}
    made = [payee.client.post("/api/v1/invoices", json=body) for _ in range(25)]
    assert {one.status_code for one in made} == {201}
    listed = payer.client.get("/api/v1/invoices")
    assert (listed.status_code, len(listed.json()["invoices"])) == (200, 25)
    assert len(payer.client.get(made[0].headers["location"]).json()["lines"]) == 100
