"""Consumers over a real NATS server, and what reaches them."""

import asyncio
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import nats.js.errors
import psycopg
import pytest
from structlog.testing import capture_logs

from scripts.stack.folder import RunFolder
from services.runtime import consumer, deadletters
from services.runtime.bus import MESSAGE_ID, Bus
from services.runtime.errors import Unavailable
from services.runtime.outbox import Outbox
from services.runtime.postgres import Database
from tests.integration.events.hearing import Heard, event, handled, publish, relaying, sent
from tests.waiting import eventually


async def nothing_is_left(bus: Bus, stream: str) -> bool:
    info = await (await bus.stream(stream)).consumer_info(stream, "test")
    return (info.num_ack_pending, info.num_pending) == (0, 0)


async def test_an_event_that_is_not_committed_is_not_told(outbox: Outbox, heard: Heard) -> None:
    async with relaying(outbox), heard.listening():
        with pytest.raises(RuntimeError):
            async with outbox.transaction() as connection:
                await outbox.add(connection, "lost", 1, event("lost", 1))
                raise RuntimeError("rolled back")
        await publish(outbox, "kept", 1)
        await handled(heard, ("kept", 1))


async def test_what_is_published_twice_is_handled_once_by_however_many_replicas(outbox: Outbox, heard: Heard) -> None:
    async with relaying(outbox), heard.listening(replicas=3):
        await publish(outbox, "p", 1)
        await publish(outbox, "p", 1)  # as a relay does that was killed before it noted what it published
        await publish(outbox, "p", 2)
        await handled(heard, ("p", 1), ("p", 2))


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
