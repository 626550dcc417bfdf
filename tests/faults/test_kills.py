"""Everything is killed at random while a town of people pay each other; stores are taken away and come back."""

import os

import pytest

from tests.faults.conftest import Scene
from tests.faults.log import errors
from tests.faults.storm import PROCESSES, Storm
from tests.faults.town import living
from tests.waiting import wait_until

SHORT = 3 * len(PROCESSES)
KILLS = int(os.environ.get("FAULTS") or SHORT)
"""How many: by `make test FAULTS=1000`."""
KILLS_BETWEEN_CHECKS = 100


def test_no_kill_loses_or_doubles_anything(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    storm = Storm(scene.stack)

    def report() -> None:
        if KILLS > SHORT and storm.kills.total() % 10 == 0:
            with capsys.disabled():
                print(f"{storm.kills.total()} of {KILLS} kills, {len(scene.log.wishes)} wishes", flush=True)

    while (left := KILLS - storm.kills.total()) > 0:
        with living(scene.town):
            storm.rage(min(left, KILLS_BETWEEN_CHECKS), report)
        book = scene.check()
    with capsys.disabled():
        kills = ", ".join(f"{name} {number}" for name, number in storm.kills.most_common())
        print(
            f"\n{storm.kills.total()} kills ({kills}); {len(book.payments)} payments, {len(errors(book.wishes))} errors"
            " that clients overcame; no violation",
        )


@pytest.mark.parametrize("store", ["postgres", "nats"])
def test_a_store_may_be_restarted_under_load(scene: Scene, store: str) -> None:
    with living(scene.town):
        with scene.stack.without(store):
            _wait_for_wishes(scene, settled=store == "nats")
        _wait_for_wishes(scene, settled=True)
    scene.check()


def _wait_for_wishes(scene: Scene, settled: bool, number: int = 20) -> None:
    """Waits for so many new wishes that were granted or refused, or for as many errors."""
    before = len(scene.log.wishes), len(errors(scene.log.wishes))

    def are_there() -> bool:
        if settled:
            return sum(wish.settled for wish in scene.log.wishes[before[0] :]) >= number
        return len(errors(scene.log.wishes)) - before[1] >= number

    wait_until(are_there, "the town does not go on")
