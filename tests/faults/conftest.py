"""A whole native stack of its own for the fault tests, the log of all its clients, and the check at the end of each."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import nats.errors
import psycopg
import pytest

from scripts.stack import lifecycle
from scripts.stack.folder import run_folder
from tests.edge.people import People
from tests.edge.stack import Stack
from tests.faults.book import Book, Books
from tests.faults.invariants import violations
from tests.faults.invariants.money import every_accepted_payment_is_terminal
from tests.faults.log import Log
from tests.faults.storm import Storm
from tests.faults.town import Town
from tests.traffic.receiver import receiving

TERMINAL_SECONDS = 30.0
"""How soon after recovery every accepted payment is terminal."""
QUIET_SECONDS = 60.0
"""How soon all else holds: NATS delivers what a killed consumer had only when it has waited for it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A stack, its people, and all that they have ever asked of it."""

    stack: Stack
    town: Town
    books: Books
    broken: list[str] = field(default_factory=list)
    """What a check has found: it will be found by every later one."""

    @property
    def log(self) -> Log:
        """Of everybody."""
        return self.town.log

    def check(self) -> Book:
        """Waits until all processes are ready and all invariants hold, and returns the book. Fails when they do not."""
        if self.broken:
            pytest.fail("The books are out of order since an earlier test.", pytrace=False)
        Storm(self.stack).calm_down()
        for wish in self.log.unanswered():  # of a test that failed
            self.log.fulfil(wish)
        recovered = time.monotonic()
        while True:
            try:
                book = self.books.read()
            except (psycopg.OperationalError, nats.errors.Error) as error:
                broken = {"it can be read": [str(error)]}
            else:
                broken = violations(book)
                if not broken:
                    return book
            passed = time.monotonic() - recovered
            late = every_accepted_payment_is_terminal.__name__ in broken and passed > TERMINAL_SECONDS
            if late or passed > QUIET_SECONDS:
                self.broken.append(f"{passed:.0f} s after recovery:\n" + _listed(broken))
                pytest.fail(self.broken[0], pytrace=False)
            time.sleep(0.5)


def _listed(broken: dict[str, list[str]], most: int = 5) -> str:
    return "\n".join(
        f"{name}: {len(lines)}\n" + "\n".join(f"    {line}" for line in lines[:most]) for name, lines in broken.items()
    )


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """A native stack with a run folder of its own, for all tests of this folder."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-test-")))
    try:
        limits = {"VELOCITY_LIMIT_PER_HOUR": "100000", "MAX_DOCUMENTS_PER_USER": "100000"}  # they are in a hurry
        settings = lifecycle.up(folder, 0, 0, limits)
        yield Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
    finally:
        lifecycle.clean(folder)


@pytest.fixture
def scene(stage: Scene) -> Scene:
    """The one that all tests play on, with everybody logged in for as long as a test takes."""
    stage.log.keep_logged_in([stage.town.admin, *stage.town.people])
    return stage


@pytest.fixture(scope="package")
def stage(stack: Stack) -> Iterator[Scene]:
    """The scene, whose people were logged in once."""
    with ExitStack() as clients:
        people = People(stack, clients)
        url, posts = clients.enter_context(receiving())
        town = Town.found(Log(people), people, 5, url, posts)
        yield Scene(stack, town, Books(stack.settings, town.log.wishes, town.subscription))
