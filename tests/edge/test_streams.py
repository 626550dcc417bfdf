"""Status streams through the edge, while parts behind it are killed, stop or are away."""

import json
import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.edge.contract.edge import reason_of
from tests.edge.people import Json, People, Person
from tests.edge.stack import Stack
from tests.waiting import wait_until

FEED = "/api/v1/payments/events"


class Feed:
    """A browser's EventSource: it comes back when it is cut, and says what it saw last."""

    def __init__(self, people: People, person: Person, path: str = FEED) -> None:
        self._client = people.nobody
        self._token = person.client.headers["authorization"].removeprefix("Bearer ")
        self._path = path
        self.ids: list[int] = []
        self.opened: list[httpx.Response] = []
        self.retries: list[int] = []

    def events(self) -> Iterator[Json]:
        """Yields the events as they come, until one ends the stream for good."""
        while True:
            headers = {"last-event-id": str(self.ids[-1])} if self.ids else {}
            query = {"access_token": self._token}
            try:
                with self._client.stream("GET", self._path, params=query, headers=headers) as response:
                    self.opened.append(response)
                    if response.status_code != 200:
                        response.read()
                        return
                    for event in self._blocks(response):
                        yield event
                        if event["event"] in {"end", "error"}:
                            return
            except httpx.TransportError:
                pass  # it was cut

    def states(self, number: int) -> list[str]:
        """The states of the next so many changes."""
        events = self.events()
        try:
            return [json.loads(next(events)["data"])["state"] for _ in range(number)]
        finally:
            events.close()  # type: ignore[attr-defined]

    def _blocks(self, response: httpx.Response) -> Iterator[Json]:
        fields: Json = {}
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "event" in fields:
                if "id" in fields:
                    self.ids.append(int(fields["id"]))
                yield fields
                fields = {}
            else:
                self.retries += [int(fields["retry"])] if "retry" in fields else []
                fields = {}


@pytest.fixture(scope="module")
def parties(people: People) -> tuple[Person, Person]:
    """A payer and a payee."""
    return people.payer(1000), people.sign_up("Grace Hopper")


def test_all_payments_of_a_user_are_one_stream_that_goes_on_where_it_was_left(
    people: People, parties: tuple[Person, Person]
) -> None:
    payer, payee = parties
    for _ in range(2):
        payer.settled(payer.pay(payee, 1).json()["id"])
    feed = Feed(people, payee)
    assert feed.states(3) == ["AUTHORIZED", "SETTLED", "AUTHORIZED"]
    assert feed.states(1) == ["SETTLED"]
    assert feed.ids == [1, 2, 3, 4]
    assert feed.opened[0].headers["content-type"] == "text/event-stream"
    assert len(feed.opened) == 2


def test_a_killed_service_costs_a_stream_nothing(people: People, stack: Stack, parties: tuple[Person, Person]) -> None:
    payer, payee = parties
    feed = Feed(people, payer)
    events = feed.events()
    next(events)
    for _ in range(3):
        payment = payer.pay(payee, 1).json()
        os.kill(stack.pid("payment"), signal.SIGKILL)
        read_until(events, payment["id"], "SETTLED")
    assert feed.ids == list(range(1, feed.ids[-1] + 1))
    assert len(feed.opened) >= 4
    assert {response.status_code for response in feed.opened} == {200}
    stack.wait_until_ready("payment")


def test_a_service_that_stops_says_when_to_come_back(
    people: People, stack: Stack, parties: tuple[Person, Person]
) -> None:
    payer, payee = parties
    feed = Feed(people, payer)
    events = feed.events()
    next(events)
    stopped = stack.pid("payment")
    os.kill(stopped, signal.SIGTERM)
    wait_until(lambda: stack.pid("payment") not in {0, stopped}, "it was not started again")
    stack.wait_until_ready("payment")
    read_until(events, payer.pay(payee, 1).json()["id"], "SETTLED")
    assert 100 <= feed.retries[1] <= 400  # the first was said in the beginning
    assert feed.ids == list(range(1, feed.ids[-1] + 1))
    assert [response.status_code for response in feed.opened] == [200, 200]


def test_without_nats_a_stream_is_late_and_misses_nothing(
    people: People, stack: Stack, parties: tuple[Person, Person]
) -> None:
    payer, payee = parties
    feed = Feed(people, payer)
    events = feed.events()
    next(events)
    with stack.without("nats"):
        read_until(events, payer.pay(payee, 1).json()["id"], "SETTLED")
    read_until(events, payer.pay(payee, 1).json()["id"], "SETTLED")
    assert feed.ids == list(range(1, feed.ids[-1] + 1))
    assert len(feed.opened) == 1


def test_a_stream_ends_with_its_session(people: People) -> None:
    person = people.sign_up()
    with people.nobody.stream("GET", FEED, headers=dict(person.client.headers)) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("retry: ")
        person.client.delete("/api/v1/sessions/current").raise_for_status()
        told = dict(line.split(": ", 1) for line in lines if line and not line.startswith(":"))
    assert (told["event"], json.loads(told["data"])["details"][0]["reason"]) == ("error", "SESSION_ENDED")
    again = person.client.get(FEED)
    assert (again.status_code, reason_of(again)) == (401, "SESSION_ENDED")


def test_the_token_of_a_stream_is_in_no_log(people: People, stack: Stack) -> None:
    person = people.sign_up()
    token = person.client.headers["authorization"].removeprefix("Bearer ")
    with people.nobody.stream("GET", FEED, params={"access_token": token}) as response:
        next(response.iter_lines())
    stack.wait_until_logged("payment", response)
    stack.wait_until_logged("envoy", response)
    assert not [name for name in ("envoy", "authz", "payment") if token in stack.log(name)]


def read_until(events: Iterator[Json], payment_id: str, state: str) -> None:
    """Reads on until a payment has come to a state."""
    for event in events:
        told = json.loads(event["data"])
        if (told["paymentId"], told["state"]) == (payment_id, state):
            return
