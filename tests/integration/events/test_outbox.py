"""The outbox and its relay over a real NATS server."""

import asyncio
from functools import partial
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from services.runtime import outbox as outbox_module
from services.runtime.bus import MESSAGE_ID, Bus
from services.runtime.ids import new_id
from services.runtime.outbox import BATCH, Outbox
from services.runtime.postgres import Database
from tests.integration.events.hearing import Heard, event, handled, publish, relaying, sent
from tests.waiting import eventually

_WAITING = "SELECT message_id FROM outbox ORDER BY position"


async def ids(bus: Bus, stream: str) -> list[str]:
    """The ids of what is in a stream, in its order."""
    jetstream = await bus.stream(stream)
    state = (await jetstream.stream_info(stream)).state
    messages = [await jetstream.get_msg(stream, sequence) for sequence in range(1, state.last_seq + 1)]
    return [(message.headers or {})[MESSAGE_ID].removeprefix(f"{stream}.") for message in messages]


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

    await _forgets(bus, stream)
    async with relaying(outbox):
        await eventually(partial(sent, database))
    assert [one for one in await ids(bus, stream) if one != "other"] == ["p.1", "p.2", "p.3"]


@pytest.mark.parametrize("late", [False, True])
async def test_events_for_another_stream_go_there_and_once(
    stream: str, database: Database, bus: Bus, outbox: Outbox, late: bool
) -> None:
    other = new_id("stream")
    async with outbox.transaction() as connection:
        await outbox.add(connection, "p", 1, event("p", 1))
        await outbox.add_to(other, connection, [(key, event(key, 1)) for key in ("q", "r", "q")])
    written = [row["message_id"].removeprefix(f"{other}.") for row in await database.fetch(_WAITING)][1:]
    if late:  # a relay that died had published one
        jetstream = await bus.stream(other)
        made = await jetstream.stream_info(other)
        await jetstream.update_stream(made.config.evolve(duplicate_window=0.1))
        await jetstream.publish(f"{other}.q", b"", headers={MESSAGE_ID: f"{other}.{written[0]}"})
        await database.execute("UPDATE outbox SET create_time = create_time - interval '2 minutes'")
        await _forgets(bus, other)
    async with relaying(outbox):
        await eventually(partial(sent, database))
    assert await ids(bus, stream) == ["p.1"]
    assert sorted(one for one in await ids(bus, other) if one != "other") == sorted(written)
    assert len(set(written)) == 3


async def _forgets(bus: Bus, stream: str) -> None:
    """Waits until a stream has forgotten the ids of what it has."""
    jetstream = await bus.stream(stream)

    async def forgotten() -> bool:
        acknowledged = await jetstream.publish(f"{stream}.other", headers={MESSAGE_ID: "other"})
        return not acknowledged.duplicate

    await forgotten()
    await eventually(forgotten)


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
        return len(await database.fetch(_WAITING)) == BATCH + 1

    async with relaying(outbox):
        await eventually(it_is_sent, 30)
    assert await ids(bus, stream) == ["good.1"]


async def test_events_for_a_stream_that_nats_does_not_give_hold_up_no_others(
    stream: str, database: Database, bus: Bus, outbox: Outbox
) -> None:
    other = new_id("stream")
    jetstream = await bus.stream(stream)
    await jetstream.add_stream(StreamConfig(in_the_way := new_id("stream"), subjects=[f"{other}.>"]))
    async with outbox.transaction() as connection:
        await outbox.add_to(other, connection, [(f"q{number:03}", event("q", 1)) for number in range(BATCH + 1)])
        await outbox.add(connection, "p", 1, event("p", 1))

    async def it_is_sent() -> bool:
        return len(await database.fetch(_WAITING)) == BATCH + 1

    async with relaying(outbox):
        await eventually(it_is_sent)
        await jetstream.delete_stream(in_the_way)
        await eventually(partial(sent, database), 30)
    assert await ids(bus, stream) == ["p.1"]
    assert sorted(one[:4] for one in await ids(bus, other)) == [f"q{number:03}" for number in range(BATCH + 1)]


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
