"""Everything is killed at random while a town of people pay each other."""

import os

import pytest

from tests.faults.conftest import Scene
from tests.faults.log import errors
from tests.faults.storm import PROCESSES, Storm
from tests.faults.town import living

KILLS = int(os.environ.get("FAULTS") or 3 * len(PROCESSES))
"""How many: by `make test FAULTS=1000`."""
KILLS_BETWEEN_CHECKS = 100


def test_no_kill_loses_or_doubles_anything(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    storm = Storm(scene.stack)

    def report() -> None:
        if KILLS > KILLS_BETWEEN_CHECKS and storm.kills.total() % 10 == 0:
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
