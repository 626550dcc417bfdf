"""Nobody gets in while authz hangs or is killed again and again, and who may gets in as soon as it is back."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.edge.contract.edge import reason_of
from tests.edge.people import People, Person
from tests.edge.stack import Stack
from tests.waiting import wait_until


def ask(person: Person) -> httpx.Response:
    """Asks for something that is the person's own."""
    return person.client.get("/api/v1/users/me", timeout=30)


def test_while_authz_hangs_everybody_is_told_so_soon(people: People, stack: Stack) -> None:
    person = people.sign_up()
    with stack.paused("authz"), ThreadPoolExecutor(20) as clients:
        start = time.monotonic()
        answers = [*clients.map(lambda _: ask(person), range(20))]
        assert time.monotonic() - start < 10  # 1 s, on a machine that has time
        stranger = people.nobody.get("/.well-known/jwks.json")
    for answer in (*answers, stranger):
        assert (answer.status_code, reason_of(answer)) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
    wait_until(lambda: ask(person).status_code == 200, "authz is back, and nobody gets in")


def test_while_authz_is_killed_again_and_again_strangers_stay_out(people: People, stack: Stack) -> None:
    person = people.sign_up()
    for _ in range(2):
        with ThreadPoolExecutor(4) as clients:
            known = [clients.submit(ask, person) for _ in range(30)]
            unknown = [clients.submit(people.nobody.get, "/api/v1/users/me") for _ in range(30)]
            stack.kill("authz")
        assert {answer.result().status_code for answer in known} <= {200, 503}
        assert {answer.result().status_code for answer in unknown} <= {401, 503}
        wait_until(lambda: ask(person).status_code == 200, "authz is back, and nobody gets in")
