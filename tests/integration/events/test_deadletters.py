"""What cannot be handled: put aside with the reason, listed, and replayed."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from services.runtime import consumer, deadletters
from services.runtime.bus import MESSAGE_ID, Bus, EventRefused
from services.runtime.postgres import Database
from tests.integration.events.hearing import Heard, event
from tests.integration.serving import identity
from tests.waiting import eventually


class Streams:
    """Publishes events, good and bad, and looks at what became dead letters."""

    def __init__(self, bus: Bus, stream: str) -> None:
        self._bus = bus
        self._stream = stream

    async def put(self, key: str, sequence: int, payload: bytes | None = None, *, named: bool = True) -> None:
        """Publishes an event, or another payload where it would be."""
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
        if named:
            headers[MESSAGE_ID] = f"{self._stream}.{key}.{sequence}"
        payload = event(key, sequence).SerializeToString() if payload is None else payload
        jetstream = await self._bus.stream(self._stream)
        await jetstream.publish(f"{self._stream}.{key}", payload, headers=headers)

    async def letters(self) -> list[deadletters.DeadLetter]:
        """What is in the stream of dead letters."""
        return [letter async for letter in deadletters.stored(self._bus)]

    async def replay(self) -> None:
        """Replays every dead letter there is."""
        for letter in await self.letters():
            await deadletters.replay(self._bus, letter)

    async def become(self, count: int) -> list[deadletters.DeadLetter]:
        """Waits until there are as many dead letters."""

        async def enough() -> bool:
            return len(await self.letters()) >= count

        await eventually(enough, 20)
        found = await self.letters()
        assert len(found) == count
        return found

    async def done(self, *consumers: str) -> bool:
        """Tells whether consumers are through with the stream."""
        jetstream = await self._bus.stream(self._stream)
        infos = [await jetstream.consumer_info(self._stream, one) for one in consumers]
        return all((info.num_ack_pending, info.num_pending) == (0, 0) for info in infos)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "BACKOFF_SECONDS", (0.01, 0.02, 0.03, 0.04, 0.05))


@pytest.fixture
def streams(bus: Bus, stream: str) -> Streams:
    return Streams(bus, stream)


async def handled(heard: Heard, count: int) -> Counter[tuple[str, int]]:
    """Waits until as many events were handled. Returns how often each was."""

    async def enough() -> bool:
        return len(await heard.events()) >= count

    await eventually(enough, 30)
    return Counter(await heard.events())


def command(nats_url: str, certificates: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command as an operator does."""
    own = identity(certificates, "notification")
    variables = {"NATS_URL": nats_url, "TLS_CERT": str(own.cert), "TLS_KEY": str(own.key), "TLS_CA": str(own.ca)}
    return subprocess.run(
        [sys.executable, "-m", "services.runtime.deadletters", *arguments],
        env={**os.environ, **variables},
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
    )


async def test_100_poisoned_among_1000_good_events_are_100_dead_letters_and_replayed_are_handled(
    stream: str, streams: Streams, heard: Heard
) -> None:
    poison: dict[str, bytes] = {
        "undecodable": b"\xff\xff",
        "latin1": b"\x0a\x02\xe9\xe9",  # a string that is not UTF-8
        "invalid": event("invalid", 0).SerializeToString(),
        "nameless": event("nameless", 1).SerializeToString(),
    }
    failing = [(f"failing{number}", 1) for number in range(20)]
    heard.failing = {key: RuntimeError("it has a\nfault: \N{EURO SIGN}") for key in failing}
    good = [(f"p{number}", 1) for number in range(1000)]
    async with heard.listening(replicas=2):
        for number in range(20):
            for key, payload in poison.items():
                await streams.put(key, number, payload, named=key != "nameless")
            await streams.put(*failing[number])
            for one in good[number * 50 : number * 50 + 50]:
                await streams.put(*one)
        assert await handled(heard, 1000) == Counter(good)
        letters = await streams.become(100)
        await eventually(partial(streams.done, "test"))

        assert Counter(letter.headers["Drawbridge-Reason"] for letter in letters) == {
            "UNDECODABLE": 40,
            "INVALID_EVENT": 20,
            "NO_EVENT_ID": 20,
            "HANDLER_FAILED": 20,
        }
        assert heard.failures.keys() == set(failing)
        assert all(6 <= failures <= 2 * 6 for failures in heard.failures.values())  # by either of two replicas
        told = {letter.headers["Drawbridge-Subject"]: dict(letter.headers) for letter in letters}
        failed = told[f"{stream}.failing0"]
        assert failed["Drawbridge-Event-Id"] == f"{stream}.failing0.1"
        assert failed["Drawbridge-Error"] == "RuntimeError: it has a fault: \\u20ac"
        assert int(failed["Drawbridge-Deliveries"]) >= 6
        assert (failed["Drawbridge-Consumer"], failed["Drawbridge-Stream"]) == ("test", stream)
        assert failed["Drawbridge-Stream-Sequence"].isdigit()
        assert "0af7651916cd43dd8448eb211c80319c" in failed["traceparent"]
        assert "sequence" in told[f"{stream}.invalid"]["Drawbridge-Error"]
        assert {one.payload for one in letters} >= set(poison.values())

        heard.failing = {}
        await streams.replay()
        # What is no event stays a dead letter; what only had no id, or failed, is handled.
        assert await handled(heard, 1040) == Counter([*good, *failing]) + Counter({("nameless", 1): 20})
        assert len(await streams.become(60)) == 60


async def test_only_the_consumer_that_failed_handles_a_replay(
    bus: Bus, database: Database, stream: str, streams: Streams
) -> None:
    one, other = (Heard(bus, database, stream, name) for name in ("one", "other"))
    one.failing = {("p", 1): RuntimeError("not yet")}
    async with one.listening(), other.listening():
        await streams.put("p", 1)
        await handled(other, 1)
        await streams.become(1)
        await database.execute("DELETE FROM handled_events WHERE consumer = 'other'")  # it would, if it were asked to
        one.failing = {}
        await streams.replay()
        assert await handled(one, 1) == {("p", 1): 1}
        await eventually(partial(streams.done, "one", "other"))
    assert await other.events() == [("p", 1)]
    assert await streams.letters() == []


async def test_a_replay_that_is_done_twice_has_one_effect(bus: Bus, streams: Streams, heard: Heard) -> None:
    heard.failing = {("p", 1): RuntimeError("not yet")}
    async with heard.listening():
        await streams.put("p", 1)
        [letter] = await streams.become(1)
        heard.failing = {}
        await asyncio.gather(*(deadletters.replay(bus, letter) for _ in range(5)))
        await handled(heard, 1)
        await deadletters.replay(bus, letter)  # as after a crash before it was deleted
        await eventually(partial(streams.done, "test"))
    assert await heard.events() == [("p", 1)]
    assert await streams.letters() == []


async def test_a_replay_of_what_was_handled_meanwhile_does_nothing(
    database: Database, stream: str, streams: Streams, heard: Heard
) -> None:
    heard.failing = {("p", 1): RuntimeError("not yet")}
    async with heard.listening():
        await streams.put("p", 1)
        await streams.become(1)
        heard.failing = {}
        await database.execute("INSERT INTO handled_events VALUES ('test', $1)", f"{stream}.p.1")
        await streams.replay()
        await eventually(partial(streams.done, "test"))
    assert await heard.events() == []


async def test_a_reader_that_is_killed_before_it_says_what_it_put_aside_puts_it_aside_once(
    bus: Bus, stream: str, streams: Streams
) -> None:
    await streams.put("p", 1)
    reader = await (await bus.stream(stream)).pull_subscribe(f"{stream}.>", "test", stream)
    for _ in range(2):
        [delivered] = await reader.fetch(1)
        await deadletters.put(bus, "test", delivered, deadletters.Undeliverable("UNDECODABLE", "It is no event."))
        await delivered.nak()  # as after ACK_SECONDS
    assert len(await streams.letters()) == 1


async def test_a_dead_letter_whose_stream_does_not_take_it_stays(
    bus: Bus, stream: str, streams: Streams, heard: Heard
) -> None:
    heard.failing = {("p", 1): RuntimeError("not yet")}
    async with heard.listening():
        await streams.put("p", 1)
        [letter] = await streams.become(1)
    jetstream = await bus.stream(stream)
    made = (await jetstream.stream_info(stream)).config
    await jetstream.update_stream(made.evolve(max_msg_size=10))
    with pytest.raises(EventRefused):
        await deadletters.replay(bus, letter)
    assert await streams.letters() == [letter]


async def test_what_fails_again_is_a_dead_letter_again_under_its_first_id(
    stream: str, streams: Streams, heard: Heard
) -> None:
    heard.failing = {("p", 1): RuntimeError("never")}
    async with heard.listening():
        await streams.put("p", 1)
        [first] = await streams.become(1)
        await streams.replay()

        async def another() -> bool:
            return [letter.id for letter in await streams.letters()] not in ([], [first.id])

        await eventually(another)
        [again] = await streams.letters()
    assert again.headers["Drawbridge-Event-Id"] == first.headers["Drawbridge-Event-Id"] == f"{stream}.p.1"
    assert again.headers["Drawbridge-Subject"] == f"{stream}.p"


async def test_the_command_lists_and_replays_all_or_one(
    nats_url: str, certificates: Path, streams: Streams, heard: Heard
) -> None:

    async def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(command, nats_url, certificates, *arguments)

    assert (await run("list")).stdout == "There are no dead letters.\n"
    heard.failing = {(key, 1): RuntimeError("out of paper") for key in ("p1", "p2", "p3")}
    async with heard.listening():
        for key in ("p1", "p2", "p3"):
            await streams.put(key, 1)
        letters = await streams.become(3)
        heard.failing = {}

        listed = await run("list")
        assert listed.returncode == 0, listed.stderr
        for letter in letters:
            [line] = [one for one in listed.stdout.splitlines() if one.split()[:1] == [str(letter.id)]]
            assert f"{letter.headers['Drawbridge-Subject']}  " in line
            assert line.endswith("HANDLER_FAILED  RuntimeError: out of paper")

        one = await run("replay", str(letters[1].id))
        assert one.stdout.endswith("1 replayed.\n"), one.stderr
        assert await streams.become(2) == [letters[0], letters[2]]
        gone = await run("replay", str(letters[1].id))
        assert gone.returncode == 1
        assert f"There is no dead letter {letters[1].id}." in gone.stderr
        assert (await run("replay", "all")).stdout.endswith("2 replayed.\n")
        assert await handled(heard, 3) == {("p1", 1): 1, ("p2", 1): 1, ("p3", 1): 1}
    assert "replay all" in (await run()).stderr
