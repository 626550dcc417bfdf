"""What users do, through the real edge and the whole system behind it."""

import csv
import json
import secrets
import ssl
from pathlib import Path

import grpc
import httpx
import pytest
from payment.v1 import payment_pb2, payment_pb2_grpc
from user.v1 import user_pb2, user_pb2_grpc

from tests.edge.contract.edge import reason_of
from tests.edge.people import BORN, People, events_of
from tests.edge.stack import Stack

AMOUNT = {"currencyCode": "EUR", "units": "40", "nanos": 0}


def test_a_payment_from_sign_up_to_settlement(people: People) -> None:
    payer, payee = people.payer(100), people.sign_up("Grace Hopper", "NL")
    created = payer.pay(payee, 40)
    payment = created.json()
    assert created.status_code == 201
    assert created.headers["location"] == f"/api/v1/payments/{payment['id']}"
    assert (payment["state"], payment["amount"], payment["payerId"]) == ("AUTHORIZED", AMOUNT, payer.id)
    assert payer.account()["reserved"]["units"] == "40"

    with payer.client.stream("GET", f"/api/v1/payments/{payment['id']}/status") as status:
        assert status.headers["content-type"] == "text/event-stream"
        events = events_of(status)
    assert [(event["event"], event.get("id")) for event in events] == [
        ("payment", "1"),
        ("payment", "2"),
        ("end", None),
    ]
    assert [json.loads(event["data"])["state"] for event in events[:2]] == ["AUTHORIZED", "SETTLED"]

    assert payer.account()["balance"]["units"] == "60"
    assert payee.account()["available"]["units"] == "40"
    entries = payee.client.get(f"/api/v1/accounts/{payee.account()['id']}/entries").json()["entries"]
    assert [(one["kind"], one["amount"], one["paymentId"]) for one in entries] == [("PAYMENT", AMOUNT, payment["id"])]
    assert payee.client.get("/api/v1/payments").json()["payments"][0]["state"] == "SETTLED"


def test_a_stream_that_is_finished_answers_204_and_a_broken_one_resumes(people: People) -> None:
    payer, payee = people.payer(10), people.sign_up()
    payment = payer.settled(payer.pay(payee, 1).json()["id"])
    path = f"/api/v1/payments/{payment['id']}/status"
    resumed = payer.client.get(path, headers={"last-event-id": "1"})
    assert [event.get("id") for event in events_of(resumed)] == ["2", None]
    finished = payer.client.get(path, headers={"last-event-id": "2"})
    assert (finished.status_code, finished.content) == (204, b"")


def test_an_event_source_sends_its_token_in_the_query_and_nobody_writes_it_down(people: People, stack: Stack) -> None:
    payer, payee = people.payer(10), people.sign_up()
    payment = payer.settled(payer.pay(payee, 1).json()["id"])
    token = payer.client.headers["authorization"].split()[1]
    status = people.nobody.get(f"/api/v1/payments/{payment['id']}/status", params={"access_token": token})
    assert events_of(status)[-1]["event"] == "end"
    elsewhere = people.nobody.get(f"/api/v1/payments/{payment['id']}", params={"access_token": token})
    assert elsewhere.status_code == 401
    stack.wait_until_logged("payment", status)
    stack.wait_until_logged("envoy", status, elsewhere)
    for process in ("envoy", "authz", "payment"):
        assert token not in stack.log(process)


def test_programs_watch_a_payment_line_by_line(people: People) -> None:
    payer, payee = people.payer(10), people.sign_up()
    payment = payer.pay(payee, 1).json()
    watched = payer.client.get(f"/api/v1/payments/{payment['id']}/events")
    assert [json.loads(line)["sequence"] for line in watched.text.splitlines()] == [1, 2]


def test_a_repeated_key_gets_the_first_answer_byte_for_byte(people: People) -> None:
    payer, payee = people.payer(10), people.sign_up()
    first = payer.pay(payee, 1, key="once")
    payer.settled(first.json()["id"])
    again = payer.pay(payee, 1, key='"once"')
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    other = payer.pay(payee, 2, key="once")
    assert (other.status_code, reason_of(other)) == (422, "IDEMPOTENCY_KEY_REUSED")
    two = [("idempotency-key", "one"), ("idempotency-key", "other"), *payer.client.headers.items()]
    with httpx.Client(base_url=payer.client.base_url, headers=two, trust_env=False) as client:
        both = client.post("/api/v1/payments", json={"payeeId": payee.id, "amount": AMOUNT})
    assert (both.status_code, reason_of(both)) == (400, "INVALID_IDEMPOTENCY_KEY")
    without = payer.client.post("/api/v1/payments", json={"payeeId": payee.id, "amount": AMOUNT})
    assert (without.status_code, reason_of(without)) == (400, "IDEMPOTENCY_KEY_REQUIRED")


def test_a_payment_without_an_identity_document_is_refused_and_leaves_nothing_behind(people: People) -> None:
    payer, payee = people.sign_up(), people.sign_up()
    people.deposit(payer, 50)
    refused = payer.pay(payee, 1)
    assert refused.status_code == 400
    types = {one["type"] for detail in refused.json()["details"] for one in detail.get("violations", [])}
    assert "IDENTITY_DOCUMENT_REQUIRED" in types
    assert payer.client.get("/api/v1/payments").json()["payments"] == []
    assert payer.account()["reserved"]["units"] == "0"


def test_what_is_decided_about_a_payment_is_a_payment(people: People) -> None:
    payer, payee = people.payer(50_000), people.sign_up()
    large = payer.pay(payee, 20_000).json()
    assert (large["state"], large["stateReason"]) == ("IN_REVIEW", "AMOUNT_OVER_THRESHOLD")
    reserved_already = payer.pay(payee, 40_000).json()
    assert (reserved_already["state"], reserved_already["stateReason"]) == ("DECLINED", "INSUFFICIENT_FUNDS")
    poor = people.payer(5).pay(payee, 6).json()
    assert (poor["state"], poor["stateReason"]) == ("DECLINED", "INSUFFICIENT_FUNDS")


def test_a_payment_is_called_off_before_it_is_settled(people: People) -> None:
    payer, payee = people.payer(20_000), people.sign_up()
    payment = payer.pay(payee, 20_000).json()
    refused = payee.client.post(f"/api/v1/payments/{payment['id']}:cancel")
    assert (refused.status_code, reason_of(refused)) == (403, "NOT_THE_PAYER")
    stale = payer.client.post(f"/api/v1/payments/{payment['id']}:cancel", json={"etag": "0"})
    assert (stale.status_code, reason_of(stale)) == (409, "ETAG_MISMATCH")
    cancelled = payer.client.post(f"/api/v1/payments/{payment['id']}:cancel", json={"etag": payment["etag"]})
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "CANCELLED")
    assert payer.account()["available"]["units"] == "20000"
    again = payer.client.post(f"/api/v1/payments/{payment['id']}:cancel")
    assert (again.status_code, reason_of(again)) == (400, "ILLEGAL_TRANSITION")
    [why] = [one for one in again.json()["details"] if "metadata" in one]
    assert why["metadata"] == {"payment_id": payment["id"], "state": "CANCELLED"}


def test_a_payment_is_paid_back_once_per_key_and_whoever_watches_hears_of_it(people: People) -> None:
    payer, payee = people.payer(40), people.sign_up()
    payment = payer.settled(payer.pay(payee, 40).json()["id"])
    path = f"/api/v1/payments/{payment['id']}"
    without = payee.client.post(f"{path}:refund")
    assert (without.status_code, reason_of(without)) == (400, "IDEMPOTENCY_KEY_REQUIRED")
    some, once = {"amount": {"currencyCode": "EUR", "units": "10"}}, {"idempotency-key": "once"}
    part = payee.client.post(f"{path}:refund", json=some, headers=once)
    assert (part.status_code, part.json()["state"], part.json()["refundedAmount"]["units"]) == (200, "SETTLED", "10")
    again = payee.client.post(f"{path}:refund", json=some, headers=once)
    assert (again.status_code, again.content) == (200, part.content)
    assert again.headers["idempotent-replayed"] == "true"
    too_much = payee.client.post(f"{path}:refund", json={"amount": AMOUNT}, headers={"idempotency-key": "much"})
    assert (too_much.status_code, reason_of(too_much)) == (400, "REFUND_EXCEEDS_PAYMENT")
    rest = payee.client.post(f"{path}:refund", headers={"idempotency-key": "rest"})
    assert (rest.status_code, rest.json()["state"]) == (200, "REFUNDED")
    assert (payer.account()["balance"]["units"], payee.account()["balance"]["units"]) == ("40", "0")
    events = events_of(payer.client.get(f"{path}/status", headers={"last-event-id": "2"}))
    assert [(one["event"], one.get("id")) for one in events] == [("payment", "3"), ("payment", "4"), ("end", None)]


def test_officers_decide_on_what_is_in_review(people: People) -> None:
    payer, payee, officer = people.payer(50_000), people.sign_up(), people.officer()
    approved, declined = (payer.pay(payee, 20_000).json()["id"] for _ in range(2))
    queue = officer.client.get("/api/v1/payments", params={"state": "IN_REVIEW"}).json()["payments"]
    assert [one["id"] for one in queue if one["payerId"] == payer.id] == [declined, approved]
    assert queue[0]["reviewExpireTime"] > queue[0]["createTime"]
    refused = payer.client.post(f"/api/v1/payments/{approved}:approve")
    assert (refused.status_code, reason_of(refused)) == (403, "ROLE_REQUIRED")
    assert officer.client.post(f"/api/v1/payments/{approved}:approve").json()["state"] == "AUTHORIZED"
    answer = officer.client.post(f"/api/v1/payments/{declined}:decline").json()
    assert (answer["state"], answer["stateReason"]) == ("DECLINED", "REVIEW_DECLINED")
    payer.settled(approved)
    assert (payer.account()["available"]["units"], payee.account()["balance"]["units"]) == ("30000", "20000")
    late = officer.client.post(f"/api/v1/payments/{declined}:approve")
    assert (late.status_code, reason_of(late)) == (400, "ILLEGAL_TRANSITION")


def test_a_payment_to_somebody_on_the_sanctions_list_is_declined(people: People) -> None:
    with (Path(__file__).parents[2] / "services/compliance/sanctions_sample.csv").open() as sample:
        name = next(row[1] for row in csv.reader(sample) if row[2] == "individual")
    last, first = name.title().split(", ")
    sanctioned = people.sign_up(f"{first} {last}")
    payment = people.payer(10).pay(sanctioned, 1).json()
    assert (payment["state"], payment["stateReason"]) == ("DECLINED", "SANCTIONS_HIT")


def test_strangers_see_nothing_and_officers_all(people: People) -> None:
    payer, payee, stranger = people.payer(10), people.sign_up(), people.sign_up()
    payment = payer.pay(payee, 1).json()
    for path in (f"/api/v1/payments/{payment['id']}", f"/api/v1/payments/{payment['id']}/status"):
        refused = stranger.client.get(path)
        assert (refused.status_code, reason_of(refused)) == (403, "NOT_A_PARTY")
    assert people.admin.client.get(f"/api/v1/payments/{payment['id']}").status_code == 200
    refused = stranger.client.get(f"/api/v1/accounts/{payer.account()['id']}/entries")
    assert (refused.status_code, reason_of(refused)) == (403, "NOT_THE_OWNER")
    refused = stranger.client.get("/api/v1/users")
    assert (refused.status_code, reason_of(refused)) == (403, "ROLE_REQUIRED")
    missing = payer.client.get("/api/v1/payments/pay_unknown")
    assert (missing.status_code, reason_of(missing)) == (404, "PAYMENT_NOT_FOUND")


def test_a_profile_is_changed_field_by_field_and_never_over_anothers_change(people: People) -> None:
    person = people.sign_up()
    before = person.client.get("/api/v1/users/me").json()
    changed = person.client.patch(
        "/api/v1/users/me?updateMask=address", json={"address": "1 Main St", "displayName": "X"}
    )
    assert (changed.status_code, changed.json()["address"]) == (200, "1 Main St")
    assert changed.json()["displayName"] == before["displayName"]
    stale = person.client.patch("/api/v1/users/me", json={"address": "2 Main St", "etag": before["etag"]})
    assert (stale.status_code, reason_of(stale)) == (409, "ETAG_MISMATCH")
    promoted = person.client.patch("/api/v1/users/me?updateMask=roles", json={"roles": ["admin"]})
    assert (promoted.status_code, reason_of(promoted)) == (403, "ADMIN_ONLY_FIELD")
    taken = people.nobody.post(
        "/api/v1/users",
        json={
            "email": person.email.upper(),
            "password": "correct horse battery",
            "displayName": "A",
            "country": "DE",
            "dateOfBirth": BORN,
        },
    )
    assert (taken.status_code, reason_of(taken)) == (409, "EMAIL_ALREADY_EXISTS")


def test_a_session_is_renewed_once_per_token_and_ended_by_a_theft(people: People) -> None:
    person = people.sign_up()
    session = people.nobody.post("/api/v1/sessions", json={"email": person.email, "password": person.password}).json()
    assert (session["tokenType"], session["expiresIn"]) == ("Bearer", 600)
    renew = {"refreshToken": session["refreshToken"]}
    renewed = people.nobody.post("/api/v1/sessions:refresh", json=renew)
    assert renewed.status_code == 200
    stolen = people.nobody.post("/api/v1/sessions:refresh", json=renew)
    assert (stolen.status_code, reason_of(stolen)) == (401, "INVALID_REFRESH_TOKEN")
    assert stolen.headers["www-authenticate"].startswith("Bearer")
    newest = people.nobody.post("/api/v1/sessions:refresh", json={"refreshToken": renewed.json()["refreshToken"]})
    assert newest.status_code == 401
    ended = person.client.delete("/api/v1/sessions/current")
    assert (ended.status_code, ended.content) == (204, b"")


def test_the_same_rpcs_are_there_for_grpc_clients(people: People, stack: Stack) -> None:
    person = people.sign_up()
    metadata = (("authorization", person.client.headers["authorization"]),)
    with grpc.insecure_channel(stack.edge_url.removeprefix("http://")) as channel:
        users = user_pb2_grpc.UserServiceStub(channel)
        user = users.GetUser(user_pb2.GetUserRequest(user_id="me"), metadata=metadata)
        assert user.id == person.id
        with pytest.raises(grpc.RpcError) as refused:
            users.GetUser(user_pb2.GetUserRequest(user_id="me"))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError):
            users.BatchGetUsers(user_pb2.BatchGetUsersRequest(user_ids=[person.id]), metadata=metadata)
        accounts = payment_pb2_grpc.AccountServiceStub(channel)
        listed = accounts.ListAccounts(payment_pb2.ListAccountsRequest(), metadata=metadata)
        assert [account.currency_code for account in listed.accounts] == ["EUR"]


@pytest.mark.parametrize("size", [8_500, 12_000, 20_000, 30_000])
def test_headers_that_the_edge_lets_through_are_taken_by_the_services(people: People, size: int) -> None:
    person = people.admin.client
    assert {person.get("/api/v1/users/me", headers={"x-large": "x" * size}).status_code for _ in range(8)} == {200}


def test_over_tls_the_same_edge_answers(people: People, stack: Stack) -> None:
    trust = ssl.create_default_context(cafile=stack.edge_ca)
    with httpx.Client(base_url=stack.edge_tls_url, verify=trust, trust_env=False, http2=True) as client:
        answer = client.get("/.well-known/jwks.json")
    assert (answer.status_code, answer.http_version, len(answer.json()["keys"])) == (200, "HTTP/2", 2)


def test_nothing_secret_is_logged(people: People, stack: Stack) -> None:
    person = people.sign_up()
    granted = people.nobody.post("/api/v1/sessions", json={"email": person.email, "password": person.password})
    secret = secrets.token_urlsafe(24)
    refused = people.nobody.post("/api/v1/sessions", json={"email": person.email, "password": secret})
    for process in ("envoy", "user"):
        stack.wait_until_logged(process, granted, refused)
    session = granted.json()
    for process in ("envoy", "authz", "user"):
        log = stack.log(process)
        for word in (person.password, secret, session["accessToken"], session["refreshToken"]):
            assert word not in log
