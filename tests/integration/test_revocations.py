"""Ends of sessions on their way to everybody, through whatever becomes of NATS meanwhile."""

import gc
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import nats.errors
import pytest

from scripts.stack import nats as servers
from scripts.stack.folder import run_folder
from services.runtime import revocations
from services.runtime.bus import SESSION, Bus, open_bus
from services.runtime.ids import new_id
from services.runtime.revocations import RevocationsUnavailable
from tests.integration.conftest import FreshDatabase
from tests.integration.ends import end, following, has_ended, heard, heard_of
from tests.integration.events.hearing import relaying
from tests.integration.nats_server import Gate, Server
from tests.integration.serving import identity, reason
from tests.integration.users import claims, open_house, refused
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


@pytest.mark.parametrize("deaf", [False, True])
async def test_an_end_is_known_whether_it_is_heard_or_only_read(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    if deaf:
        monkeypatch.setattr(bus, "listen", lambda *_: bus.connected())
    else:
        monkeypatch.setattr(revocations, "LOOK_SECONDS", 3600.0)
    async with following(bus) as follower:
        await heard_of(follower, bus)
        ended, still_open = new_id("ses"), new_id("ses")
        await end(bus, ended)
        await heard(follower, ended)
        follower.require_open(still_open)
        follower.require_open("")


async def test_whoever_starts_later_knows_what_ended_before(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "_BATCH", 7)
    before = [new_id("ses") for _ in range(50)]
    for session_id in before:
        await end(bus, session_id)
    async with following(bus) as one, following(bus) as other:
        await heard(one, *before)
        await heard(other, *before)


async def test_what_ended_long_ago_is_neither_read_nor_remembered(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(revocations, "REMEMBERED", timedelta(seconds=1))
    old = new_id("ses")
    await end(bus, old)
    async with following(bus) as follower:
        await heard(follower, old)

        async def forgotten() -> bool:
            return not await has_ended(follower, old)

        await eventually(forgotten)
        newer = new_id("ses")
        await end(bus, newer)
        async with following(bus) as later:
            await heard(later, newer)
            later.require_open(old)
        await heard(follower, newer)


async def test_watchers_of_a_session_are_called_once_when_it_ends_and_of_no_other(bus: Bus) -> None:
    called: list[str] = []
    session_id, other = new_id("ses"), new_id("ses")
    async with following(bus) as follower:
        for name in ("one", "two"):
            follower.watch(session_id, partial(called.append, name))
        follower.watch(other, partial(called.append, "other"))
        gone = follower.watch(session_id, partial(called.append, "gone"))
        gone()
        gone()
        await end(bus, session_id)
        await heard(follower, session_id)
        await end(bus, session_id)
        assert sorted(called) == ["one", "two"]
        follower.watch(session_id, partial(called.append, "late"))()
        assert called[-1] == "late"


async def test_nothing_is_kept_of_watches_that_are_over(bus: Bus) -> None:
    async with following(bus) as follower:
        session_ids = [new_id("ses") for _ in range(3)]
        over = [follower.watch(session_id, lambda: None) for session_id in session_ids for _ in range(2)]
        await end(bus, session_ids[0])
        await heard(follower, session_ids[0])
        for unwatch in over:
            unwatch()
        assert follower._watchers == {}


@pytest.mark.parametrize("lost", ["nothing", "its process", "its disk"])
async def test_what_ends_while_a_follower_cannot_reach_nats_is_known_to_it_afterwards(
    server: Server, bus: Bus, certificates: Path, lost: str
) -> None:
    async with AsyncExitStack() as stack:
        gate = Gate(server.port)
        port = await stack.enter_async_context(gate.serving())
        followed = await stack.enter_async_context(open_bus(servers.url(port), identity(certificates, "payment")))
        follower = await stack.enter_async_context(following(followed))
        before = [new_id("ses") for _ in range(5)]
        for session_id in before:
            await end(bus, session_id)
        await heard(follower, *before)
        gate.close()
        if lost != "nothing":
            server.kill()
            if lost == "its disk":
                server.wipe()
            server.start()
        meanwhile = new_id("ses")
        await end(bus, meanwhile)
        assert not await has_ended(follower, meanwhile)
        gate.open = True
        after = new_id("ses")
        await end(bus, after)
        await heard(follower, *before, meanwhile, after)


async def test_who_notices_that_nats_lost_its_disk_writes_what_ended_again_for_those_who_start_later(
    server: Server, bus: Bus, certificates: Path
) -> None:
    before = [new_id("ses") for _ in range(5)]
    async with following(bus) as one, AsyncExitStack() as stack:
        another = await stack.enter_async_context(open_bus(server.url, identity(certificates, "authz")))
        other = await stack.enter_async_context(following(another))
        for session_id in before:
            await end(bus, session_id)
        await heard(one, *before)
        await heard(other, *before)
        server.kill()
        server.wipe()
        server.start()
        await eventually(partial(stored, bus, len(before)), 20)
    async with following(bus) as later:
        await heard(later, *before)
        assert await stored(bus, len(before))  # each once, whoever wrote it


async def stored(bus: Bus, ends: int) -> bool:
    """Tells whether the stream has so many ends."""
    try:
        return (await (await bus.stream(SESSION)).stream_info(SESSION)).state.messages == ends
    except nats.errors.Error:
        bus.forget(SESSION)
        return False


async def test_nothing_is_said_to_be_open_before_the_stream_was_read_and_then_nats_may_go(
    server: Server, certificates: Path
) -> None:
    server.kill()
    async with open_bus(server.url, identity(certificates, "authz")) as bus, following(bus) as follower:
        with pytest.raises(RevocationsUnavailable):
            await follower.ready()
        server.start()

        async def is_ready() -> bool:
            await follower.ready()
            return True

        await eventually(is_ready, 20)
        server.kill()
        await follower.ready()
        server.start()
        await heard_of(follower, bus)


async def test_whoever_starts_while_nats_is_away_follows_as_soon_as_it_is_there(
    server: Server, certificates: Path
) -> None:
    server.kill()
    async with open_bus(server.url, identity(certificates, "user")) as bus, following(bus) as follower:
        server.start()
        await heard_of(follower, bus)


async def test_reading_leaves_nothing_behind_in_nats(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "listen", lambda *_: bus.connected())
    async with following(bus) as follower:
        for _ in range(3):
            await heard_of(follower, bus)
        jetstream = await bus.stream(SESSION)

        async def nobody() -> bool:
            return await jetstream.consumers_info(SESSION) == []

        await eventually(nobody)


async def test_a_deleted_stream_is_made_anew_and_read(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "listen", lambda *_: bus.connected())
    async with following(bus) as follower:
        for _ in range(3):
            await heard_of(follower, bus)
        await (await bus.stream(SESSION)).delete_stream(SESSION)
        bus.forget(SESSION)
        await heard_of(follower, bus)  # a lower sequence than was read before


async def test_a_logout_reuse_and_a_suspension_reach_another_service(
    fresh_database: FreshDatabase, server: Server, certificates: Path
) -> None:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(fresh_database("user"), server.url, certificates))
        elsewhere = await stack.enter_async_context(open_bus(server.url, identity(certificates, "payment")))
        follower = await stack.enter_async_context(following(elsewhere))
        await stack.enter_async_context(relaying(house.outbox))
        user = await house.sign_up()
        out, reused, suspended = [await house.log_in(user.email) for _ in range(3)]
        await house.log_out(user, out)
        await heard(follower, claims(out)["sid"])
        await house.refresh(reused.refresh_token)
        assert reason(await refused(house.refresh(reused.refresh_token))) == "INVALID_REFRESH_TOKEN"
        await heard(follower, claims(reused)["sid"])
        follower.require_open(claims(suspended)["sid"])
        server.kill()
        await house.suspend(user)
        server.start()
        await heard(follower, claims(suspended)["sid"])
