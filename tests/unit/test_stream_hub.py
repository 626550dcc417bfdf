"""The hub of status streams, over events that a test makes up."""

import asyncio
from typing import Any

import pytest

from services.payment.domain import State
from services.payment.streams import hub as hub_module
from services.payment.streams.domain import Kind, StreamEnded, Topic
from services.payment.streams.hub import PAGE, TAIL, Watcher
from services.runtime import deadline
from tests.unit.topics import PAYER, PAYMENT, SECONDS, FakeBus, FakeEvents, all_of, running, seen, until


async def test_however_many_watch_the_database_is_asked_once() -> None:
    events, bus = FakeEvents(), FakeBus()
    async with running(events, bus) as hub:
        watchers = [hub.open(PAYMENT, 0, 0) for _ in range(500)]
        reading = [asyncio.create_task(watcher.more()) for watcher in watchers]
        await until(lambda: events.reads[Kind.PAYMENT] == 1)  # what came before they watched
        events.reads.clear()
        events.commit(PAYMENT)
        bus.tell()
        got = await asyncio.gather(*reading)
        assert {event.position for one in got for event in one} == {1}
        assert len({id(event) for one in got for event in one}) == 1  # encoded once, too
        assert events.reads == {Kind.PAYMENT: 1}


async def test_many_wakes_at_once_are_one_look() -> None:
    events, bus = FakeEvents(), FakeBus()
    async with running(events, bus) as hub:
        watcher = hub.open(PAYER, 0, 0)
        await until(lambda: events.reads[Kind.USER] == 1)
        events.reads.clear()
        for _ in range(50):
            events.commit(PAYER)
            bus.tell()
        assert await seen(watcher, 50) == list(range(1, 51))
        assert events.reads == {Kind.USER: 1}


async def test_what_nobody_watches_is_not_read() -> None:
    events, bus = FakeEvents(), FakeBus()
    async with running(events, bus) as hub:
        hub.close(hub.open(PAYMENT, 0, 0))
        other = Topic(Kind.PAYMENT, "pay_2")
        watcher = hub.open(other, 0, 0)
        events.commit(PAYMENT)
        events.commit(other)
        bus.tell()
        bus.tell("pay_2")
        assert await seen(watcher, 1) == [1]
        assert events.asked == {other}


async def test_without_a_word_from_the_bus_one_query_finds_what_is_new_for_all() -> None:
    events = FakeEvents()
    async with running(events, FakeBus(), look_seconds=0.2) as hub:
        topics = [Topic(Kind.PAYMENT, f"pay_{number}") for number in range(100)]
        watchers = [hub.open(topic, 0, 0) for topic in topics]
        await until(lambda: events.reads[Kind.PAYMENT] >= 2)  # it looks unasked
        for topic in topics:
            events.commit(topic)
        events.reads.clear()
        assert [await seen(watcher, 1) for watcher in watchers] == [[1]] * 100
        assert events.reads[Kind.PAYMENT] <= 2


async def test_however_much_there_is_on_however_many_topics_a_query_finds_so_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "READ_ROWS", 50)
    events = FakeEvents()
    topics = [Topic(Kind.PAYMENT, f"pay_{number}") for number in range(20)]
    for topic in topics:
        for _ in range(7):
            events.commit(topic)
    async with running(events, FakeBus()) as hub:
        watchers = [hub.open(topic, 0, 7) for topic in topics]
        assert [await seen(watcher, 7) for watcher in watchers] == [[1, 2, 3, 4, 5, 6, 7]] * 20
        assert events.most_rows <= 50


async def test_what_was_committed_between_the_question_for_the_last_position_and_the_watch_is_not_missed() -> None:
    events = FakeEvents()
    async with running(events, FakeBus()) as hub:
        events.commit(PAYMENT)
        assert await seen(hub.open(PAYMENT, 0, latest=0), 1) == [1]


@pytest.mark.parametrize("after", [0, 1, TAIL, 3 * PAGE - 1])
async def test_whoever_is_far_behind_reads_pages_and_then_what_all_read(after: int) -> None:
    events, bus = FakeEvents(), FakeBus()
    for _ in range(3 * PAGE):
        events.commit(PAYER)
    async with running(events, bus) as hub:
        watcher = hub.open(PAYER, after, 3 * PAGE)
        old = await seen(watcher, 3 * PAGE - after)
        events.commit(PAYER)
        bus.tell()
        assert old + await seen(watcher, 1) == list(range(after + 1, 3 * PAGE + 2))
        other = hub.open(PAYER, 3 * PAGE - 1, 3 * PAGE + 1)
        rows = events.rows
        assert await seen(other, 2) == [3 * PAGE, 3 * PAGE + 1]
        assert events.rows == rows  # they were at hand


async def test_a_watcher_that_is_slow_costs_the_others_nothing_and_misses_nothing() -> None:
    events, bus = FakeEvents(), FakeBus()
    async with running(events, bus, look_seconds=0.1) as hub:
        quick, slow = hub.open(PAYER, 0, 0), hub.open(PAYER, 0, 0)
        for position in range(1, 10 * TAIL + 1):
            events.commit(PAYER)
            bus.tell()
            assert await seen(quick, 1) == [position]
        assert await seen(slow, 10 * TAIL) == list(range(1, 10 * TAIL + 1))


async def test_events_are_at_hand_for_a_moment_only() -> None:
    events, bus = FakeEvents(), FakeBus()
    async with running(events, bus, look_seconds=0.1) as hub:
        watcher = hub.open(PAYER, 0, 0)
        events.commit(PAYER)
        bus.tell()
        await seen(watcher, 1)
        await until(lambda: not watcher.topic.after(0))
        assert watcher.topic.after(0) is None
        assert watcher.topic.after(1) == ()


async def test_watchers_go_on_when_the_database_was_away() -> None:
    events, bus = FakeEvents(), FakeBus()
    async with running(events, bus) as hub:
        watcher = hub.open(PAYMENT, 0, 0)
        await until(lambda: events.reads[Kind.PAYMENT] == 1)
        events.away = True
        events.reads.clear()
        events.commit(PAYMENT)
        bus.tell()
        await until(lambda: events.reads[Kind.PAYMENT] >= 2)
        events.away = False
        assert await seen(watcher, 1) == [1]


async def test_whoever_is_behind_while_the_database_is_away_goes_on_with_a_heartbeat() -> None:
    events = FakeEvents()
    for _ in range(3 * TAIL):
        events.commit(PAYER)
    async with running(events, FakeBus(), heartbeat_seconds=0.2) as hub:
        events.away = True
        watcher = hub.open(PAYER, 0, 3 * TAIL)
        assert list(await watcher.more()) == []
        events.away = False
        assert await seen(watcher, 3 * TAIL) == list(range(1, 3 * TAIL + 1))


async def test_an_end_that_comes_while_a_page_is_read_in_vain_is_not_lost() -> None:
    events = FakeEvents()
    for _ in range(3 * TAIL):
        events.commit(PAYER)
    async with running(events, FakeBus()) as hub:
        events.away = True
        events.going_on.clear()
        watcher = hub.open(PAYER, 0, 3 * TAIL)
        reading = asyncio.create_task(watcher.more())
        await until(lambda: events.reads[Kind.USER] == 2)  # the hub's read, and the watcher's
        watcher.end(StreamEnded)
        events.going_on.set()
        with pytest.raises(StreamEnded):
            async with asyncio.timeout(SECONDS):
                await reading


async def test_a_topic_that_is_left_and_found_again_while_it_is_read_has_no_gap() -> None:
    events, bus = FakeEvents(), FakeBus()
    for _ in range(5):
        events.commit(PAYER)
    async with running(events, bus) as hub:
        events.going_on.clear()
        first = hub.open(PAYER, 4, 5)
        await until(lambda: events.reads[Kind.USER] == 1)  # it is being read, from 4 on
        hub.close(first)
        others = [hub.open(PAYER, after, 5) for after in (0, 3)]
        events.going_on.set()
        assert [await seen(others[0], 5), await seen(others[1], 2)] == [[1, 2, 3, 4, 5], [4, 5]]
        events.commit(PAYER)
        bus.tell()
        assert [await seen(other, 1) for other in others] == [[6], [6]]


async def test_idle_streams_have_heartbeats_that_do_not_come_all_at_once() -> None:
    async with running(FakeEvents(), FakeBus(), heartbeat_seconds=0.6) as hub:
        loop = asyncio.get_running_loop()

        async def beats(watcher: Watcher) -> list[float]:
            times = []
            for _ in range(2):
                assert list(await watcher.more()) == []
                times.append(loop.time())
            return times

        async with asyncio.timeout(SECONDS):
            all_beats = await asyncio.gather(*(beats(hub.open(PAYMENT, 0, 0)) for _ in range(30)))
        assert max(first for first, _ in all_beats) - min(first for first, _ in all_beats) > 0.2
        assert all(0.3 < second - first < 5 for first, second in all_beats)


async def test_a_payment_that_is_final_ends_its_stream_after_all_that_came_until_then() -> None:
    events = FakeEvents()
    for state in (State.AUTHORIZED, State.SETTLED, State.REFUNDED):
        events.commit(PAYMENT, state)
    async with running(events, FakeBus()) as hub:
        watcher = hub.open(PAYMENT, 0, 3)
        assert await seen(watcher, 3) == [1, 2, 3]
        assert watcher.finished


@pytest.mark.parametrize("number", [PAGE, PAGE + TAIL + 1])
async def test_a_payment_that_was_refunded_hundreds_of_times_is_told_to_the_last(number: int) -> None:
    events = FakeEvents()
    for _ in range(number):
        events.commit(PAYMENT, State.SETTLED)
    async with running(events, FakeBus()) as hub:
        assert await all_of(hub.open(PAYMENT, 0, number)) == list(range(1, number + 1))


async def test_a_batch_that_happens_to_end_with_a_terminal_state_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "READ_ROWS", 2)  # as with thousands of topics
    events = FakeEvents()
    for state in (State.AUTHORIZED, State.SETTLED, State.SETTLED, State.REFUNDED):
        events.commit(PAYMENT, state)
    async with running(events, FakeBus()) as hub:
        assert await all_of(hub.open(PAYMENT, 0, 4)) == [1, 2, 3, 4]


async def test_a_user_is_never_final() -> None:
    events = FakeEvents()
    events.commit(PAYER, State.SETTLED)
    async with running(events, FakeBus()) as hub:
        watcher = hub.open(PAYER, 0, 1)
        await seen(watcher, 1)
        assert not watcher.finished


async def test_a_server_that_stops_ends_all_streams_one_after_the_other_and_takes_no_more() -> None:
    async with running(FakeEvents(), FakeBus()) as hub:
        loop = asyncio.get_running_loop()

        async def ended(watcher: Watcher) -> float:
            with pytest.raises(StreamEnded) as caught:
                await watcher.more()
            assert 0.1 <= (caught.value.retry_after or 0) <= 0.4
            return loop.time()

        waiting = [asyncio.create_task(ended(hub.open(PAYMENT, 0, 0))) for _ in range(200)]
        await asyncio.sleep(0)
        hub.end()
        async with asyncio.timeout(SECONDS):
            late = await ended(hub.open(PAYMENT, 0, 0))
            times = await asyncio.gather(*waiting)
        assert late <= min(times)
        assert max(times) - min(times) > 0.2


async def test_a_stream_ends_before_its_deadline_cuts_it_however_short_that_is() -> None:
    events = FakeEvents()
    events.commit(PAYMENT)
    async with running(events, FakeBus()) as hub:

        async def watch() -> float | None:
            deadline.begin(2)
            watcher = hub.open(PAYMENT, 0, 1)
            assert await seen(watcher, 1) == [1]
            with pytest.raises(StreamEnded):
                await watcher.more()
            return deadline.remaining()

        async with asyncio.timeout(SECONDS):
            remaining = await asyncio.create_task(watch())
        assert remaining is not None
        assert remaining > 0


async def test_a_long_stream_ends_with_the_last_heartbeat_before_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SHORT_SECONDS", 0)  # or it would take a minute
    async with running(FakeEvents(), FakeBus(), heartbeat_seconds=0.5) as hub:

        async def watch(seconds: float) -> Any:
            deadline.begin(seconds)
            return await hub.open(PAYMENT, 0, 0).more()

        async with asyncio.timeout(SECONDS):
            with pytest.raises(StreamEnded):
                await asyncio.create_task(watch(1))
            assert await asyncio.create_task(watch(60)) == ()
