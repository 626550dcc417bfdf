"""The outbox, its relay and its consumers over a real NATS server."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.js.errors
import psycopg
import pytest
from nats.js.api import DiscardPolicy
from structlog.testing import capture_logs

from scripts.stack.folder import RunFolder
from services.runtime import consumer, deadletters
from services.runtime import outbox as outbox_module
from services.runtime.bus import MESSAGE_ID, Bus, open_bus
from services.runtime.errors import Unavailable
from services.runtime.ids import new_id
from services.runtime.outbox import BATCH, Outbox
from services.runtime.postgres import Database, open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.hearing import TABLES, Heard, event, publish, relaying
from tests.integration.serving import identity
from tests.waiting import eventually

_WAITING = "SELECT message_id FROM outbox ORDER BY position"


@pytest.fixture
def database_url(fresh_database: FreshDatabase) -> str:
    return fresh_database("payment")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        await database.execute(TABLES)
        yield database


@pytest.fixture
async def bus(nats_url: str, certificates: Path) -> AsyncIterator[Bus]:
    async with open_bus(nats_url, identity(certificates, "payment")) as bus:
        await bus.connected()
        yield bus


@pytest.fixture
def stream() -> str:
    return new_id("stream")


@pytest.fixture
def outbox(stream: str, database: Database, bus: Bus) -> Outbox:
    return Outbox(stream, database, bus)


@pytest.fixture
def heard(stream: str, database: Database, bus: Bus) -> Heard:
    return Heard(bus, database, stream)


async def handled(heard: Heard, *expected: tuple[str, int]) -> None:
    """Waits until as many events are handled. They must be these, each once."""

    async def enough() -> bool:
        return len(await heard.events()) >= len(expected)

    await eventually(enough, 20)
    assert sorted(await heard.events()) == sorted(expected)


async def nothing_is_left(bus: Bus, stream: str) -> bool:
    info = await (await bus.stream(stream)).consumer_info(stream, "test")
    return (info.num_ack_pending, info.num_pending) == (0, 0)


async def ids(bus: Bus, stream: str) -> list[str]:
    """The ids of what is in a stream, in its order."""
    jetstream = await bus.stream(stream)
    state = (await jetstream.stream_info(stream)).state
    messages = [await jetstream.get_msg(stream, sequence) for sequence in range(1, state.last_seq + 1)]
    return [(message.headers or {})[MESSAGE_ID].removeprefix(f"{stream}.") for message in messages]


async def sent(database: Database) -> bool:
    return not await database.fetch("SELECT FROM outbox")


async def test_an_event_that_is_not_committed_is_not_told(outbox: Outbox, heard: Heard) -> None:
    async with relaying(outbox), heard.listening():
        with pytest.raises(RuntimeError):
            async with outbox.transaction() as connection:
                await outbox.add(connection, "lost", 1, event("lost", 1))
                raise RuntimeError("rolled back")
        await publish(outbox, "kept", 1)
        await handled(heard, ("kept", 1))


async def test_events_of_one_subject_keep_their_order_with_several_relays(
    stream: str, database: Database, bus: Bus, heard: Heard
) -> None:
    outboxes = [Outbox(stream, database, bus) for _ in range(3)]

    async def write(key: str, outbox: Outbox) -> None:
        for sequence in range(1, 41):
            await publish(outbox, key, sequence)

    async with relaying(*outboxes), heard.listening():
        await asyncio.gather(*(write(f"p{number}", outbox) for number, outbox in enumerate(outboxes)))
        await eventually(partial(sent, database))
        await handled(heard, *((f"p{number}", sequence) for number in range(3) for sequence in range(1, 41)))
    for number in range(3):
        in_order = [f"p{number}.{sequence}" for sequence in range(1, 41)]
        assert [one for one in await ids(bus, stream) if one.startswith(f"p{number}.")] == in_order
        assert [f"{key}.{sequence}" for key, sequence in await heard.events() if key == f"p{number}"] == in_order


async def test_what_is_published_twice_is_handled_once_by_however_many_replicas(outbox: Outbox, heard: Heard) -> None:
    async with relaying(outbox), heard.listening(replicas=3):
        await publish(outbox, "p", 1)
        await publish(outbox, "p", 1)  # as a relay does that was killed before it noted what it published
        await publish(outbox, "p", 2)
        await handled(heard, ("p", 1), ("p", 2))


async def test_a_relay_that_comes_back_late_publishes_nothing_twice(
    stream: str, database: Database, bus: Bus, outbox: Outbox
) -> None:
    jetstream = await bus.stream(stream)
    made = await jetstream.stream_info(stream)
    await jetstream.update_stream(made.config.evolve(duplicate_window=0.1))
    for sequence in (1, 2):
        headers = {MESSAGE_ID: f"{stream}.p.{sequence}"}
        await jetstream.publish(f"{stream}.p", event("p", sequence).SerializeToString(), headers=headers)
    for sequence in (1, 2, 3):
        await publish(outbox, "p", sequence)
    await database.execute("UPDATE outbox SET create_time = create_time - interval '2 minutes'")

    async def forgotten() -> bool:
        acknowledged = await jetstream.publish(f"{stream}.other", headers={MESSAGE_ID: "other"})
        return not acknowledged.duplicate

    await jetstream.publish(f"{stream}.other", headers={MESSAGE_ID: "other"})
    await eventually(forgotten)
    async with relaying(outbox):
        await eventually(partial(sent, database))
    assert [one for one in await ids(bus, stream) if one != "other"] == ["p.1", "p.2", "p.3"]


async def test_a_relay_gets_on_however_slow_nats_is(
    stream: str, database: Database, bus: Bus, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_it = bus.publish

    async def publish_slowly(*what: Any) -> None:
        await asyncio.sleep(outbox_module.BATCH_SECONDS)
        await publish_it(*what)

    async def some_are_noted() -> bool:
        return 0 < len(await database.fetch(_WAITING)) < 4

    monkeypatch.setattr(outbox_module, "BATCH_SECONDS", 0.1)
    monkeypatch.setattr(bus, "publish", publish_slowly)
    for sequence in (1, 2, 3, 4):
        await publish(outbox, "p", sequence)
    async with relaying(outbox):
        await eventually(some_are_noted)
        await eventually(partial(sent, database))
    assert await ids(bus, stream) == ["p.1", "p.2", "p.3", "p.4"]


async def test_events_that_jetstream_refuses_hold_up_only_those_of_their_subjects(
    stream: str, database: Database, bus: Bus, outbox: Outbox
) -> None:
    jetstream = await bus.stream(stream)
    made = (await jetstream.stream_info(stream)).config
    await jetstream.update_stream(made.evolve(max_msg_size=1000))
    async with outbox.transaction() as connection:
        for number in range(BATCH):  # as many as a relay looks at
            large = event(f"large{number}", 1)
            large.state_reason = "X" * (2_000_000 if number == 0 else 2000)
            await outbox.add(connection, f"large{number}", 1, large)
        await outbox.add(connection, "large1", 2, event("large1", 2))
        await outbox.add(connection, "good", 1, event("good", 1))

    async def it_is_sent() -> bool:
        return await ids(bus, stream) == ["good.1"]

    async with relaying(outbox):
        await eventually(it_is_sent)
    assert len(await database.fetch(_WAITING)) == BATCH + 1


async def test_events_wait_in_order_while_the_stream_is_full(
    stream: str, database: Database, bus: Bus, outbox: Outbox
) -> None:
    jetstream = await bus.stream(stream)
    made = (await jetstream.stream_info(stream)).config
    await jetstream.update_stream(made.evolve(max_msgs=2, discard=DiscardPolicy.NEW))
    async with outbox.transaction() as connection:
        for sequence in range(1, 6):
            await outbox.add(connection, "p", sequence, event("p", sequence))

    async def full() -> bool:
        return [row["message_id"][-1] for row in await database.fetch(_WAITING)] == ["3", "4", "5"]

    async with relaying(outbox):
        await eventually(full)
        await jetstream.update_stream(made)
        await eventually(partial(sent, database))
    assert await ids(bus, stream) == [f"p.{sequence}" for sequence in range(1, 6)]


async def test_a_consumer_that_had_nothing_to_do_for_long_still_listens(
    outbox: Outbox, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "FETCH_SECONDS", 0.001)  # it asks in vain many times before each
    keys = [(f"p{number}", 1) for number in range(3 * consumer.CONCURRENT)]
    async with relaying(outbox), heard.listening():
        for number, key in enumerate(keys):
            await publish(outbox, *key)
            await handled(heard, *keys[: number + 1])


async def test_an_event_that_fails_comes_again_and_holds_up_no_other(outbox: Outbox, heard: Heard) -> None:
    heard.failing_once = {("bad", 1): RuntimeError("not this time")}
    async with relaying(outbox), heard.listening():
        await publish(outbox, "bad", 1)
        await publish(outbox, "good", 1)
        await handled(heard, ("good", 1), ("bad", 1))


async def test_an_event_in_the_middle_of_which_its_reader_ends_is_handled_by_another_at_once(
    stream: str, bus: Bus, outbox: Outbox, heard: Heard
) -> None:
    await publish(outbox, "p", 1)
    heard.may_end.clear()
    async with relaying(outbox), heard.listening():
        async with asyncio.timeout(10):
            await heard.begun.wait()
    assert await heard.events() == []
    heard.may_end.set()
    async with heard.listening(), asyncio.timeout(consumer.ACK_SECONDS / 2):
        await handled(heard, ("p", 1))
        await eventually(partial(nothing_is_left, bus, stream))


async def test_an_event_that_a_killed_reader_committed_and_did_not_acknowledge_is_handled_once(
    stream: str, database: Database, bus: Bus, outbox: Outbox, heard: Heard
) -> None:
    await publish(outbox, "p", 1)
    async with relaying(outbox):
        await eventually(partial(sent, database))
    jetstream = await bus.stream(stream)
    reader = await jetstream.pull_subscribe(f"{stream}.>", "test", stream)
    [delivered] = await reader.fetch(1)
    await database.execute("INSERT INTO handled_events VALUES ('test', $1)", (delivered.headers or {})[MESSAGE_ID])
    await database.execute("INSERT INTO effects VALUES ('test', 'p', 1)")
    await delivered.nak()  # as after ACK_SECONDS
    async with heard.listening():
        await eventually(partial(nothing_is_left, bus, stream))
    assert await heard.events() == [("p", 1)]
    assert (await jetstream.consumer_info(stream, "test")).config.ack_wait == consumer.ACK_SECONDS


async def test_while_the_database_is_away_nothing_is_lost_or_given_up(
    stream: str,
    database: Database,
    database_url: str,
    bus: Bus,
    outbox: Outbox,
    heard: Heard,
    folder: RunFolder,
) -> None:
    name = Path(urlsplit(database_url).path).name
    keys = [(f"p{number}", 1) for number in range(30)]
    for key in keys:
        await publish(outbox, *key)
    async with relaying(outbox):
        await eventually(partial(sent, database))
    with psycopg.connect(
        host=str(folder.sockets), user="postgres", dbname="postgres", autocommit=True
    ) as administrator:
        administrator.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        async with heard.listening():
            with capture_logs() as logs:

                async def looked_for() -> bool:
                    return [line["event"] for line in logs].count("worker failed") > 2

                await eventually(looked_for)
            delivered = (await (await bus.stream(stream)).consumer_info(stream, "test")).delivered
            assert delivered is not None
            assert 0 < delivered.consumer_seq <= consumer.CONCURRENT  # the others are not tried in vain
            administrator.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
            await handled(heard, *keys)
            await eventually(partial(nothing_is_left, bus, stream))


async def test_what_a_handler_cannot_reach_is_waited_for_for_ever(
    stream: str, bus: Bus, outbox: Outbox, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "UNAVAILABLE_SECONDS", 0.02)
    heard.failing = {("early", 1): Unavailable()}
    async with relaying(outbox), heard.listening():
        await publish(outbox, "early", 1)

        async def often() -> bool:
            return heard.failures["early", 1] > 2 * len(consumer.BACKOFF_SECONDS)

        await eventually(often)
        await publish(outbox, "good", 1)
        await handled(heard, ("good", 1))
        heard.failing_once = {("early", 1): RuntimeError("once is no reason to give up")}
        heard.failing = {}
        await handled(heard, ("good", 1), ("early", 1))
        assert heard.failing_once == {}
        await eventually(partial(nothing_is_left, bus, stream))
    assert [letter async for letter in deadletters.stored(bus) if letter.headers["Drawbridge-Stream"] == stream] == []


async def test_an_operator_may_configure_a_stream_otherwise(
    stream: str, bus: Bus, outbox: Outbox, heard: Heard
) -> None:
    jetstream = await bus.stream(stream)
    made = await jetstream.stream_info(stream)
    await jetstream.update_stream(made.config.evolve(max_age=3600.0))
    bus.forget(stream)
    async with relaying(outbox), heard.listening():
        await publish(outbox, "pay_1", 1)
        await handled(heard, ("pay_1", 1))


async def test_a_consumer_and_a_stream_that_are_deleted_are_made_anew(
    stream: str, bus: Bus, outbox: Outbox, heard: Heard
) -> None:
    jetstream = await bus.stream(stream)
    async with relaying(outbox), heard.listening():
        await publish(outbox, "p", 1)
        await handled(heard, ("p", 1))
        await jetstream.delete_consumer(stream, "test")
        await publish(outbox, "p", 2)
        await handled(heard, ("p", 1), ("p", 2))
        await jetstream.delete_stream(stream)
        with pytest.raises(nats.js.errors.NotFoundError):
            await jetstream.stream_info(stream)
        await publish(outbox, "p", 3)
        await handled(heard, ("p", 1), ("p", 2), ("p", 3))
