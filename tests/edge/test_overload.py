"""What clients see while a service that payments need is away or hangs: a quick answer, and nothing half-done."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from services.runtime.breaker import FAILURES_IN_A_ROW
from tests.edge.contract.edge import reason_of
from tests.edge.people import People, Person
from tests.edge.stack import Stack
from tests.waiting import wait_until

KEYS = [f"overload-{number}" for number in range(FAILURES_IN_A_ROW)]
RECOVERY_SECONDS = 10.0
"""Two on a machine that has nothing else to do."""


@pytest.fixture(scope="module")
def payer(people: People) -> Person:
    return people.payer(1000)


@pytest.fixture(scope="module")
def payee(people: People) -> Person:
    return people.sign_up("Grace Hopper")


def payments(person: Person) -> int:
    return len(person.client.get("/api/v1/payments?pageSize=100").raise_for_status().json()["payments"])


def require_refused_for_now(answer: httpx.Response) -> None:
    assert (answer.status_code, reason_of(answer)) == (503, "UPSTREAM_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1


def require_recovered(payer: Person, payee: Person, keys: list[str], before: int) -> None:
    """Asserts that the same requests are carried out soon, once each."""
    began = time.monotonic()
    wait_until(lambda: payer.pay(payee, 1, key=keys[0]).status_code == 201, "no payment is made")
    assert time.monotonic() - began < RECOVERY_SECONDS
    for key in keys:
        assert payer.pay(payee, 1, key=key).status_code == 201
    assert payments(payer) == before + len(keys)


def test_while_compliance_is_away_payments_are_refused_and_leave_nothing_behind(
    stack: Stack, payer: Person, payee: Person
) -> None:
    before, reserved, keys = payments(payer), payer.account()["reserved"], [f"away-{key}" for key in KEYS]
    with stack.without("compliance"):
        for key in [*keys, *keys]:
            require_refused_for_now(payer.pay(payee, 1, key=key))
        assert payments(payer) == before
        assert payer.account()["reserved"] == reserved
    require_recovered(payer, payee, keys, before)


def test_while_compliance_hangs_only_the_first_payments_wait_for_it(stack: Stack, payer: Person, payee: Person) -> None:
    payer.pay(payee, 1).raise_for_status()
    before, keys = payments(payer), [f"hangs-{key}" for key in KEYS]
    with stack.paused("compliance"):
        with ThreadPoolExecutor(len(keys)) as threads:
            late = list(threads.map(lambda key: payer.pay(payee, 1, key=key), keys))
        assert {(one.status_code, reason_of(one)) for one in late} == {(504, "UPSTREAM_TOO_SLOW")}
        require_refused_for_now(payer.pay(payee, 1, key=keys[0]))
        assert payments(payer) == before
    require_recovered(payer, payee, keys, before)
