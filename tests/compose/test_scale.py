"""Three replicas of payment: each takes its share, each shows what the others do, and each can be missed."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from docker.models.containers import Container

from tests.compose.project import Project
from tests.edge.people import People, Person
from tests.traffic import books
from tests.traffic.customers import paying
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def replicas(stack: Project, people: People) -> Iterator[list[Container]]:
    """Three containers of payment that the edge knows of."""
    stack.scale("payment", 3)
    try:
        three = stack.containers("payment")
        person = people.sign_up()
        wait_until(lambda: len(_shares(three, _look(person, 6))) == 3, "the edge has not found all three", seconds=15)
        yield three
    finally:
        stack.scale("payment", 1)


def test_requests_spread_over_all_replicas(people: People, replicas: list[Container]) -> None:
    shares = _shares(replicas, _look(people.sign_up(), 60))
    assert len(shares) == 3
    assert min(shares.values()) >= 10


def test_a_stream_shows_at_once_what_another_replica_does(people: People, replicas: list[Container]) -> None:
    payer, payee = people.payer(10), people.sign_up()
    payment_id = payer.pay(payee, 1).json()["id"]
    with ThreadPoolExecutor(6) as threads:
        watched = list(threads.map(lambda _: _watch(payer, payment_id), range(6)))
    served = _shares(replicas, [request_id for request_id, _ in watched])
    assert len(served) >= 2  # and only one of them has settled it
    for _, delays in watched:
        assert list(delays) == ["AUTHORIZED", "SETTLED"]
        assert delays["SETTLED"] < timedelta(seconds=1)  # without being told it would be 3 s at the most


def test_of_a_replica_that_is_killed_clients_miss_only_what_it_was_at(
    people: People, stack: Project, replicas: list[Container]
) -> None:
    with paying(people) as customers:
        customers.do_well()
        replicas[0].kill()
        try:
            customers.do_well(10)
        finally:
            replicas[0].start()
            stack.wait_until_ready(replicas[0])
        customers.do_well()
    assert [one for one in customers.all if len([answer for answer in one.answers if answer.reason]) > 1] == []
    customers.check_errors()
    books.check(customers)


def test_clients_do_not_notice_that_replicas_are_taken_away_and_added(
    people: People, stack: Project, replicas: list[Container]
) -> None:
    with paying(people) as customers:
        customers.do_well()
        stack.scale("payment", 1)
        customers.do_well()
        stack.scale("payment", 3)
        customers.do_well()
    assert customers.errors == []
    books.check(customers)


def _look(person: Person, times: int) -> list[str]:
    """Asks payment for something, so many times. Returns the ids of the requests."""
    answers = [person.client.get("/api/v1/accounts").raise_for_status() for _ in range(times)]
    return [answer.headers["x-request-id"] for answer in answers]


def _shares(replicas: Sequence[Container], request_ids: Sequence[str]) -> Counter[str]:
    """Returns how many of the requests each replica has served, of those that have served any."""
    served: Counter[str] = Counter()

    def all_are_logged() -> bool:
        served.clear()
        for replica in replicas:
            lines = map(json.loads, replica.logs(stderr=False).splitlines())
            served[replica.name] = len({line.get("request_id") for line in lines}.intersection(request_ids))
        return served.total() == len(request_ids)

    wait_until(all_are_logged, "not all requests are in the logs")
    return +served


def _watch(payer: Person, payment_id: str) -> tuple[str, dict[str, timedelta]]:
    """Follows a payment to its end. Returns the request's id, and how late each state was shown."""
    delays = {}
    with payer.client.stream("GET", f"/api/v1/payments/{payment_id}/status") as status:
        for line in status.iter_lines():
            if line.startswith("data: ") and "state" in (change := json.loads(line.removeprefix("data: "))):
                delays[change["state"]] = datetime.now(UTC) - datetime.fromisoformat(change["createTime"])
    return status.headers["x-request-id"], delays
