"""The audit trail of the whole system, as officers read it: everything that changes something is in it, once."""

import secrets
from dataclasses import dataclass, field

import httpx
import jwt
import pytest

from scripts.stack.folder import CONTRACT
from services.runtime import contract
from tests.edge.contract.edge import reason_of
from tests.edge.people import Json, People, Person, scan
from tests.edge.stack import Stack
from tests.edge.test_passwords import CODE, ask, change, reset, wait_for
from tests.integration.mailbox import Mailbox
from tests.traffic.receiver import receiving
from tests.waiting import wait_until

AUDIT = "/api/v1/audit"
UNRECORDED = {
    "ReadNotification": "what somebody has read of what they were told is nobody else's business",
    "ReadAllNotifications": "likewise",
    "RefreshSession": "it goes on with what CreateSession began",
    "ListAccounts": "it opens the account that everybody starts with, and only for whoever asks",
}
"""What changes something from outside and is no entry, and why."""
CHANGES = {
    method.rpc.rpartition("/")[2]: method
    for method in contract.load(CONTRACT).values()
    if method.access != "none" and method.changes and method.rpc.rpartition("/")[2] not in UNRECORDED
}


@dataclass
class Done:
    """What was done: by whom, to what, and how it was answered."""

    answer: httpx.Response
    actor_id: str
    credential_id: str
    resources: tuple[str, ...]


@dataclass
class Doings:
    """Everything that was done, by RPC."""

    done: dict[str, Done] = field(default_factory=dict)

    def by(self, who: Person, rpc: str, answer: httpx.Response, *resources: str) -> Json:
        """Notes what somebody did who is logged in. Returns the answer."""
        claims = claims_of(who)
        return self._note(rpc, answer, claims["sub"], claims["sid"], resources)

    def by_nobody(self, rpc: str, answer: httpx.Response, user_id: str, *resources: str) -> Json:
        """The same of what needs no token."""
        return self._note(rpc, answer, user_id, "", resources)

    def _note(self, rpc: str, answer: httpx.Response, actor: str, credential: str, resources: tuple[str, ...]) -> Json:
        assert answer.is_success, answer.text
        location = answer.headers.get("location", "").removeprefix("/api/v1/")
        self.done[rpc] = Done(answer, actor, credential, resources or (location,))
        found: Json = answer.json() if answer.content else {}
        return found


def claims_of(who: Person) -> Json:
    return claims(who.client.headers["authorization"].removeprefix("Bearer "))


def claims(token: str) -> Json:
    return jwt.decode(token, options={"verify_signature": False})


def told(officer: Person, **asked: str) -> list[Json]:
    entries: list[Json] = officer.client.get(AUDIT, params=asked).raise_for_status().json()["entries"]
    return entries


@pytest.fixture(scope="module")
def officer(people: People) -> Person:
    return people.officer()


def pays(doings: Doings, people: People, officer: Person) -> None:
    """Everything about money."""
    payer, payee = people.payers([50_000, 0])
    made = doings.by(payer, "CreatePayment", payer.pay(payee, 5))
    payer.settled(made["id"])
    path, key = f"/api/v1/payments/{made['id']}", {"idempotency-key": secrets.token_hex()}
    doings.by(payee, "RefundPayment", payee.client.post(f"{path}:refund", json={}, headers=key), path[8:])
    for who, verb, rpc in (
        (payer, "cancel", "CancelPayment"),
        (officer, "approve", "ApprovePayment"),
        (officer, "decline", "DeclinePayment"),
    ):
        reviewed = payer.pay(payee, 12_000).json()["id"]
        doings.by(who, rpc, who.client.post(f"/api/v1/payments/{reviewed}:{verb}", json={}), f"payments/{reviewed}")
    doings.by(payer, "CreateAccount", payer.client.post("/api/v1/accounts", json={"currencyCode": "USD"}))
    admin, account = people.admin, f"accounts/{payee.account()['id']}"
    doings.by(admin, "CreateDeposit", people.deposit(payee, 1), account)
    line = {"description": "Tuning", "unitAmount": {"currencyCode": "EUR", "units": "2"}}
    body = {"payerId": payer.id, "lines": [line], "dueDate": {"year": 2100, "month": 1, "day": 1}}
    invoices = [doings.by(payee, "CreateInvoice", payee.client.post("/api/v1/invoices", json=body)) for _ in range(2)]
    first, second = (f"invoices/{one['id']}" for one in invoices)
    doings.by(payee, "VoidInvoice", payee.client.post(f"/api/v1/{first}:void", json={}), first)
    key = {"idempotency-key": secrets.token_hex()}
    paid = payer.client.post(f"/api/v1/{second}:pay", json={}, headers=key)
    doings.by(payer, "PayInvoice", paid, f"payments/{paid.json()['id']}", second)


def hears(doings: Doings, people: People) -> None:
    """Everything about notifications and webhooks."""
    payee = people.sign_up()
    preferences = payee.client.patch("/api/v1/notifications/preferences?updateMask=email", json={"email": False})
    doings.by(payee, "UpdatePreferences", preferences, f"preferences/{payee.id}")
    with receiving() as (url, posts):
        webhook = doings.by(payee, "CreateWebhook", payee.client.post("/api/v1/webhooks", json={"url": url}))
        path = f"/api/v1/webhooks/{webhook['id']}"
        update = payee.client.patch(f"{path}?updateMask=description", json={"description": "books"})
        doings.by(payee, "UpdateWebhook", update, path[8:])
        rotated = payee.client.post(f"{path}:rotateSecret", json={})
        doings.by(payee, "RotateWebhookSecret", rotated, path[8:])
        people.payer(1).pay(payee, 1).raise_for_status()
        wait_until(lambda: bool(posts), "nothing was posted")
        delivery = payee.client.get(f"{path}/deliveries").json()["deliveries"][0]["id"]
        replayed = f"{path}/deliveries/{delivery}"
        doings.by(payee, "ReplayWebhookDelivery", payee.client.post(f"{replayed}:replay", json={}), replayed[8:])
        doings.by(payee, "DeleteWebhook", payee.client.delete(path), path[8:])


def keeps_documents(doings: Doings, people: People) -> None:
    """Everything about documents."""
    owner = people.sign_up()
    document = doings.by(owner, "UploadDocument", owner.upload(scan()))
    path = f"/api/v1/documents/{document['id']}"
    owner.read(document["id"])
    doings.by(owner, "VerifyDocument", owner.client.post(f"{path}:verify", json={}), path[8:])
    doings.by(owner, "DeleteDocument", owner.client.delete(path), path[8:])


def logs_in(doings: Doings, people: People, mails: Mailbox) -> None:
    """Everything about users."""
    person = people.sign_up()
    new = {"email": f"{secrets.token_hex(8)}@example.com", "displayName": "Grace Hopper", "country": "DE"}
    profile = {"password": person.password, "dateOfBirth": {"year": 1990, "month": 2, "day": 28}}
    signed_up = people.nobody.post("/api/v1/users", json=new | profile)
    doings.by_nobody("CreateUser", signed_up, signed_up.json()["id"])
    update = people.admin.client.patch(f"/api/v1/users/{person.id}?updateMask=address", json={"address": "1 Mill Lane"})
    doings.by(people.admin, "UpdateUser", update, f"users/{person.id}")
    key = doings.by(person, "CreateApiKey", person.client.post("/api/v1/apiKeys", json={"displayName": "till"}))
    path = f"/api/v1/apiKeys/{key['id']}"
    doings.by(person, "RevokeApiKey", person.client.delete(path), path[8:])
    doings.by(person, "ChangePassword", change(person, person.password, f"{person.password}!"), f"users/{person.id}")
    credentials = {"email": person.email, "password": f"{person.password}!"}
    opened = people.nobody.post("/api/v1/sessions", json=credentials)
    session = claims(opened.raise_for_status().json()["accessToken"])["sid"]
    doings.by_nobody("CreateSession", opened, person.id, f"sessions/{session}")
    ended = claims_of(person)["sid"]
    doings.by(person, "DeleteSession", person.client.delete("/api/v1/sessions/current"), f"sessions/{ended}")
    doings.by_nobody("RequestPasswordReset", ask(people, person.email), "", f"users/{person.id}")
    [code] = CODE.findall(wait_for(mails, person.email, "Password reset requested"))
    answer = reset(people, person.email, code, person.password)
    doings.by_nobody("ResetPassword", answer, person.id, f"users/{person.id}")


def test_everything_that_changes_something_is_recorded_once(people: People, officer: Person, mails: Mailbox) -> None:
    doings = Doings()
    logs_in(doings, people, mails)
    keeps_documents(doings, people)
    hears(doings, people)
    pays(doings, people, officer)
    assert doings.done.keys() == CHANGES.keys()
    for rpc, done in doings.done.items():
        entries = told(officer, action=CHANGES[rpc].rpc, service=CHANGES[rpc].server)
        request = done.answer.headers["x-request-id"]
        found = [entry for entry in entries if entry["requestId"] == request]
        assert sorted(entry["resource"] for entry in found) == sorted(done.resources), rpc
        for entry in found:
            assert (entry["actorId"], entry["credentialId"]) == (done.actor_id, done.credential_id), rpc
            assert bool(entry["roles"]) == bool(done.credential_id), rpc


def test_what_a_program_does_is_recorded_with_its_key(people: People, officer: Person) -> None:
    owner = people.sign_up()
    key = owner.client.post("/api/v1/apiKeys", json={"displayName": "till"}).raise_for_status().json()
    program = people.program(owner, key["key"])
    made = program.client.post("/api/v1/accounts", json={"currencyCode": "USD"}).raise_for_status().json()
    [entry] = told(officer, resource=f"accounts/{made['id']}")
    assert (entry["actorId"], entry["credentialId"], entry["action"].rpartition("/")[2]) == (
        owner.id,
        key["id"],
        "CreateAccount",
    )


def test_whoever_sees_what_is_somebody_elses_is_recorded(people: People, officer: Person) -> None:
    owner, admin = people.sign_up(), people.admin
    document = owner.upload(scan()).json()["id"]
    account = owner.account()["id"]
    wait_until(lambda: owner.client.get("/api/v1/kyc/me").json()["state"] != "PENDING", "KYC has not heard of them")
    for who, path, resource in (
        (officer, f"users/{owner.id}", f"users/{owner.id}"),
        (officer, f"kyc/{owner.id}", f"kyc/{owner.id}"),
        (officer, f"documents/{document}", f"documents/{document}"),
        (officer, f"documents/{document}/content", f"documents/{document}"),
        (admin, f"accounts/{account}/entries", f"accounts/{account}"),
        (admin, "users", "users"),
        (admin, "payments", "payments"),
        (admin, "audit", "audit"),
    ):
        seen = who.client.get(f"/api/v1/{path}").raise_for_status()
        found = [one for one in told(officer, resource=resource) if one["requestId"] == seen.headers["x-request-id"]]
        assert [(one["actorId"], one["resource"]) for one in found] == [(claims_of(who)["sub"], resource)], path
        own = owner.client.get(f"/api/v1/{path}")
        entries = told(officer, resource=resource)
        assert own.headers["x-request-id"] not in [one["requestId"] for one in entries], path


def test_the_audit_is_for_officers_and_admins(people: People) -> None:
    refused = people.sign_up().client.get(AUDIT)
    assert (refused.status_code, reason_of(refused)) == (403, "ROLE_REQUIRED")
    assert people.admin.client.get(AUDIT).status_code == 200
    unknown = people.admin.client.get(AUDIT, params={"service": "ledger"})
    assert (unknown.status_code, reason_of(unknown)) == (400, "UNKNOWN_SERVICE")


def test_a_service_that_is_away_keeps_nobody_from_reading_of_the_others(
    people: People, officer: Person, stack: Stack
) -> None:
    with stack.without("notification"):
        away = officer.client.get(AUDIT)
        assert (away.status_code, reason_of(away)) == (503, "AUDIT_TRAIL_UNAVAILABLE")
        assert "notification" in away.json()["message"]
        assert officer.client.get(AUDIT, params={"service": "user"}).json()["entries"]
    wait_until(lambda: officer.client.get(AUDIT).status_code == 200, "the audit does not come back")
