"""Customers who pay and look, without a pause, and keep every answer: traffic to disturb a system under.

Each does what a good client does: one Idempotency-Key for each payment, and the same one until it is answered.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx

from tests.edge.contract.edge import reason_of
from tests.edge.people import People, Person
from tests.waiting import wait_until

DEPOSIT = 10_000
"""What each has in the beginning, in units of EUR."""
PATIENCE_SECONDS = 60.0
"""How long they try to make one payment."""
PACE_SECONDS = 0.05
LONGEST_SECONDS = 8.0
"""How long any answer may take: the edge waits 1 s for authz and 6 s for a service."""

_ERRORS = (Path(__file__).parents[2] / "docs/errors.md").read_text()
FOR_NOW = {(int(status), reason) for status, reason in re.findall(r"^\| (503|504) \| \w+ \| `(\w+)` \|", _ERRORS, re.M)}
"""HTTP status and reason of all documented errors that say that something is away or late."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request."""

    asked: str
    """What for: `pay`, `pay again`, `payment`, `accounts` or `profile`."""
    status: int
    """Of HTTP; 0 where nothing came."""
    reason: str
    """Of an error, or what became of the connection; empty for success."""
    seconds: float
    """How long it took."""


class Customer:
    """Somebody who pays, one payment after the other, each of another amount."""

    def __init__(self, person: Person, payee: Person) -> None:
        self.person = person
        self.payee = payee
        self.paid: dict[str, int] = {}
        """Cents by the id of each payment that was acknowledged."""
        self.answers: list[Answer] = []
        self.good_rounds = 0
        """How often all went well, from a payment to the last look."""

    def go_on(self, until: Event) -> None:
        """Pays and looks; what was begun is finished. Raises AssertionError for what no client should see."""
        while not until.is_set():
            begun = len(self.answers)
            cents, key = 100 + len(self.paid), secrets.token_hex()
            payment_id = self._pay(cents, key)
            assert payment_id not in self.paid
            self.paid[payment_id] = cents
            again = self._ask("pay again", self._order, cents, key)
            assert again is None or again.json()["id"] == payment_id
            self._ask("payment", self.person.client.get, f"/api/v1/payments/{payment_id}")
            self._look()
            self.good_rounds += not any(answer.reason for answer in self.answers[begun:])

    def _look(self) -> None:
        self._ask("accounts", self.person.client.get, "/api/v1/accounts")
        self._ask("profile", self.person.client.get, "/api/v1/users/me")
        time.sleep(PACE_SECONDS)

    def _pay(self, cents: int, key: str) -> str:
        """Makes a payment, however often it has to be asked for. Returns its id."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            made = self._ask("pay", self._order, cents, key)
            if made is not None:
                assert (made.status_code, made.json()["state"]) == (201, "AUTHORIZED")
                return str(made.json()["id"])
            self._look()
        raise AssertionError(f"no payment in {PATIENCE_SECONDS} s: {self.answers[-5:]}")

    def _order(self, cents: int, key: str) -> httpx.Response:
        return self.person.pay(self.payee, cents // 100, key, nanos=cents % 100 * 10_000_000)

    def _ask(self, what: str, send: Callable[..., httpx.Response], *of: Any) -> httpx.Response | None:
        """Sends a request and keeps what came of it. Returns the answer unless it is an error."""
        started = time.monotonic()
        try:
            response = send(*of)
            status, reason = response.status_code, "" if response.is_success else reason_of(response)
            assert status != 503 or int(response.headers["retry-after"]) >= 1
        except httpx.TransportError as error:
            status, reason = 0, type(error).__name__
        self.answers.append(Answer(what, status, reason, time.monotonic() - started))
        return None if reason else response


class Customers:
    """All of them, at once."""

    def __init__(self, people: People, number: int) -> None:
        self.payee = people.sign_up("Grace Hopper", "NL")
        self.all = [Customer(payer, self.payee) for payer in people.payers([DEPOSIT] * number)]

    @property
    def errors(self) -> list[Answer]:
        """All answers that were none."""
        return [answer for customer in self.all for answer in customer.answers if answer.reason]

    def check_errors(self) -> None:
        """Checks that errors say in documented words that something is away for now, and come in time."""
        undocumented = [error for error in self.errors if (error.status, error.reason) not in FOR_NOW]
        late = [error for error in self.errors if error.seconds > LONGEST_SECONDS]
        assert (undocumented, late) == ([], []), (undocumented, late)  # pytest explains nothing outside of test modules

    def do_well(self, rounds: int = 3) -> None:
        """Waits until all has gone well for each so many times more."""
        before = {customer: customer.good_rounds for customer in self.all}
        self._wait(lambda one: one.good_rounds - before[one] >= rounds, "not all goes well for everybody")

    def do_anything(self, requests: int = 4) -> None:
        """Waits until each has been answered so many more requests, in whichever way."""
        before = {customer: len(customer.answers) for customer in self.all}
        self._wait(lambda one: len(one.answers) - before[one] >= requests, "not everybody is answered")

    def _wait(self, condition: Callable[[Customer], bool], otherwise: str) -> None:
        wait_until(lambda: all(map(condition, self.all)), otherwise, seconds=PATIENCE_SECONDS)


@contextmanager
def paying(people: People, number: int = 6) -> Iterator[Customers]:
    """Has that many customers pay for a while; at the end each has made the payment it was at."""
    customers, enough = Customers(people, number), Event()
    with ThreadPoolExecutor(number) as threads:
        going_on = [threads.submit(customer.go_on, enough) for customer in customers.all]
        try:
            yield customers
        finally:
            enough.set()
            for one in going_on:
                one.result()
