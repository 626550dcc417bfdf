"""What clients see while a part of the system is killed, away or slow, and that it goes on afterwards."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.edge.contract.edge import reason_of
from tests.edge.people import People, scan
from tests.edge.stack import Stack
from tests.waiting import wait_until


def unavailable(response: httpx.Response) -> bool:
    """Tells whether a response is the one of a system that lacks a part, with all that belongs to it."""
    assert reason_of(response)
    return response.status_code == 503 and int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("part", ["user", "compliance", "document"])
def test_without_a_service_that_it_needs_a_payment_is_refused_for_now(people: People, stack: Stack, part: str) -> None:
    payer, payee = people.payer(10), people.sign_up()
    with stack.without(part):
        refused = payer.pay(payee, 1, key="again")
        assert unavailable(refused)
        assert payer.client.get("/api/v1/payments").json()["payments"] == []
    wait_until(lambda: payer.pay(payee, 1, key="again").status_code == 201, f"no payment after {part} came back")
    assert len(payer.client.get("/api/v1/payments").json()["payments"]) == 1


def test_without_the_service_itself_the_edge_says_so(people: People, stack: Stack) -> None:
    payer = people.sign_up()
    with stack.without("payment"):
        assert unavailable(payer.client.get("/api/v1/accounts"))
    wait_until(lambda: payer.client.get("/api/v1/accounts").status_code == 200, "no answer after payment came back")


def test_without_authz_nobody_gets_in(people: People, stack: Stack) -> None:
    person = people.sign_up()
    with stack.without("authz"):
        assert unavailable(person.client.get("/api/v1/users/me"))
        assert unavailable(people.nobody.get("/.well-known/jwks.json"))
    wait_until(lambda: person.client.get("/api/v1/users/me").status_code == 200, "no answer after authz came back")


def test_without_its_database_a_service_says_so_and_recovers(people: People, stack: Stack) -> None:
    payer, payee = people.payer(10), people.sign_up()
    with stack.without("postgres"):
        assert unavailable(payer.client.get("/api/v1/accounts"))
    wait_until(lambda: payer.pay(payee, 1, key="db").status_code == 201, "no payment after Postgres came back")
    assert len(payer.client.get("/api/v1/payments").json()["payments"]) == 1


def test_without_nats_payments_settle_and_watchers_are_told(people: People, stack: Stack) -> None:
    payer, payee = people.payer(10), people.sign_up()
    with stack.without("nats"):
        payment = payer.pay(payee, 1).json()
        status = payer.client.get(f"/api/v1/payments/{payment['id']}/status")
        assert "SETTLED" in status.text

    def told() -> set[str]:
        notifications = payer.client.get("/api/v1/notifications").json()["notifications"]
        return {one["kind"] for one in notifications if one["paymentId"] == payment["id"]}

    wait_until(lambda: told() == {"PAYMENT_AUTHORIZED", "PAYMENT_SETTLED"}, "the events were lost")


def test_a_service_that_hangs_is_given_up_on_at_the_deadline(people: People, stack: Stack) -> None:
    person = people.sign_up()
    person.account()  # the edge is connected: to a process that hangs it could not be
    with stack.paused("payment"):
        late = person.client.get("/api/v1/accounts")
    assert (late.status_code, reason_of(late)) == (504, "DEADLINE_EXCEEDED")


def test_a_payment_that_waits_for_a_service_that_hangs_is_given_up_on_in_time(people: People, stack: Stack) -> None:
    payer, payee = people.payer(10), people.sign_up()
    payer.pay(payee, 1)
    with stack.paused("compliance"):
        late = payer.pay(payee, 1)
    assert (late.status_code, reason_of(late)) == (504, "UPSTREAM_TOO_SLOW")
    assert len(payer.client.get("/api/v1/payments").json()["payments"]) == 1


def test_a_payment_is_settled_though_its_service_is_killed(people: People, stack: Stack) -> None:
    payer, payee = people.payer(10), people.sign_up()
    payment = payer.pay(payee, 1).json()
    stack.kill("payment")
    assert payer.settled(payment["id"])["state"] == "SETTLED"
    assert payee.account()["balance"]["units"] == "1"


def test_what_is_in_flight_when_a_service_is_told_to_stop_is_answered(people: People, stack: Stack) -> None:
    owner, half_way, go_on = people.sign_up(), threading.Event(), threading.Event()
    head = b'--x\r\nContent-Disposition: form-data; name="kind"\r\n\r\nPASSPORT\r\n'
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + scan() + b"\r\n--x--\r\n"

    def body() -> Iterator[bytes]:
        yield head
        yield file[:1000]
        half_way.set()
        assert go_on.wait(10)
        yield file[1000:]

    def upload() -> httpx.Response:
        headers = {"content-type": "multipart/form-data; boundary=x"}
        return owner.client.post("/api/v1/documents/upload", content=body(), headers=headers)

    stopped = stack.pid("document")
    with ThreadPoolExecutor() as pool:
        uploading = pool.submit(upload)
        assert half_way.wait(10)
        wait_until(lambda: stack.in_flight("document") == 1, "the upload has not begun")
        os.kill(stopped, signal.SIGTERM)
        wait_until(lambda: not stack.is_ready("document"), "it does not stop")
        go_on.set()
        assert uploading.result().status_code == 201
    wait_until(lambda: stack.pid("document") not in {0, stopped}, "it was not started again")
    stack.wait_until_ready("document")
