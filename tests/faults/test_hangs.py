"""Parts that hang: clients are told in time, a second request does not do what the first is at, and it is done once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.conftest import Scene
from tests.faults.log import IN_USE, pay
from tests.faults.stalls import freeze, thaw
from tests.traffic.customers import FOR_NOW, LONGEST_SECONDS

CENTS = 77


@pytest.mark.parametrize("part", ["user", "compliance", "document"])
def test_while_a_payment_waits_for_what_hangs_its_key_is_in_use_and_later_it_is_made_once(
    scene: Scene, part: str
) -> None:
    payer, payee, *_ = scene.town.people
    log = scene.log
    log.fulfil(pay(log, payer, payee, CENTS))  # all are connected: to a process that hangs they could not be
    wish = pay(log, payer, payee, CENTS)
    freeze(scene.stack, part)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.submit(log.ask, wish), threads.submit(log.ask, wish)
    thaw(scene.stack, part)
    in_use, late = sorted((first.result(), second.result()), key=lambda answer: answer.seconds)
    assert (in_use.status, in_use.reason) == IN_USE
    assert in_use.retry_after == 1
    assert (late.status, late.reason) in FOR_NOW
    assert late.status == 504
    assert late.seconds < LONGEST_SECONDS
    made = log.fulfil(wish)
    assert (made.status, made.replayed) == (201, False)
    scene.check()


@pytest.mark.parametrize("part", ["authz", "payment", "nats", "postgres"])
def test_what_is_asked_of_what_hangs_is_answered_in_time_and_done_once(scene: Scene, part: str) -> None:
    payer, payee, *_ = scene.town.people
    wish, log = pay(scene.log, payer, payee, CENTS), scene.log
    freeze(scene.stack, part)
    first = log.ask(wish)
    thaw(scene.stack, part)
    assert first.good or first.for_now
    assert first.seconds < LONGEST_SECONDS
    assert log.fulfil(wish).good
    scene.check()
