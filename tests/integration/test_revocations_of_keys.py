"""Ends of API keys and users, which may go on with less: how long they count, and who is told."""

import gc
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scripts.stack.folder import run_folder
from services.runtime import revocations
from services.runtime.bus import Bus, open_bus
from services.runtime.ids import new_id
from tests.integration.ends import end, following, heard, heard_of
from tests.integration.nats_server import Server
from tests.integration.serving import identity
from tests.waiting import eventually

# The client of NATS does not close what the server closed: it is collected here, lest it is in another test.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
async def _collected() -> AsyncIterator[None]:
    yield
    gc.collect()


@pytest.fixture
def server(certificates: Path, _collected: None) -> Iterator[Server]:
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-nats-")))
    made = Server(folder, certificates)
    made.start()
    try:
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder.path)


@pytest.fixture
async def bus(server: Server, certificates: Path) -> AsyncIterator[Bus]:
    async with open_bus(server.url, identity(certificates, "user")) as bus:
        yield bus


async def test_an_api_key_and_a_user_may_go_on_after_a_while_and_what_ended_is_told(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "ANEW_SECONDS", 3600.0)
    told: list[str] = []
    async with following(bus) as follower:
        follower.listen(told.append)
        key_id, user_id = new_id("key"), new_id("usr")
        closed: list[str] = []
        follower.watch(key_id, partial(closed.append, "stream"))
        for one in (key_id, user_id):
            await end(bus, one)
        await heard(follower, key_id, user_id)
        assert closed == ["stream"]
        assert {key_id, user_id} <= set(told)
        monkeypatch.setattr(revocations, "ANEW_SECONDS", 0.0)
        for one in (key_id, user_id):
            follower.require_open(one)
            assert follower.event(one) is not None
        assert follower.event(new_id("usr")) is None


async def test_an_old_end_is_told_to_who_starts_later_and_stops_nobody_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = new_id("key")
    await end(bus, key_id)
    async with following(bus) as follower:
        await heard(follower, key_id)
    monkeypatch.setattr(revocations, "ANEW_SECONDS", 0.001)
    told: list[str] = []
    async with following(bus) as later:
        later.listen(told.append)
        monkeypatch.setattr(later, "_hear", _stepping(later._hear, partial(later.require_open, key_id)))
        await heard_of(later, bus)
        assert later.event(key_id) is not None
        assert told.count(key_id) == 1


def _stepping(hear: Callable[..., None], then: Callable[[], None]) -> Callable[..., None]:
    """Does something right after each end that is heard."""

    def step(*heard_of: Any) -> None:
        hear(*heard_of)
        then()

    return step


async def test_an_end_that_is_read_after_it_was_heard_is_told_once(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "LOOK_SECONDS", 0.02)
    told: list[str] = []
    async with following(bus) as follower:
        follower.listen(told.append)
        await heard_of(follower, bus)
        key_id = new_id("key")
        await end(bus, key_id)
        await heard(follower, key_id)
        read = follower._read

        async def is_read() -> bool:
            return follower._read > read or follower._read >= 2

        await eventually(is_read)
        assert told.count(key_id) == 1


async def test_ends_are_not_current_after_a_reconnection_until_those_that_were_missed_are_read(bus: Bus) -> None:
    async with following(bus) as follower:

        async def is_current() -> bool:
            return follower.are_current

        await eventually(is_current)
        await bus._tell_of_reconnection()
        assert not follower.are_current
        await eventually(is_current)
