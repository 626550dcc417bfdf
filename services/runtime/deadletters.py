"""Dead letters: events that a consumer could not handle, kept for 30 days, to be looked at and replayed.

    python -m services.runtime.deadletters list
    python -m services.runtime.deadletters replay all
    python -m services.runtime.deadletters replay ID...

in the environment of any service that has events (NATS_URL, TLS_CERT, TLS_KEY, TLS_CA). A replayed event is published
again on its subject, for the consumer that could not handle it; the others pass it by, and so does that one if it has
handled the event meanwhile. If it fails again, it is a dead letter again.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import nats.errors
import uvloop
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from services.runtime import config
from services.runtime.bus import DEADLETTER, MESSAGE_ID, TRACEPARENT, Bus, BusUnavailable, EventRefused, open_bus
from services.runtime.config import BusSettings, TlsSettings
from services.runtime.tls import Identity

ORIGINAL_ID = "Drawbridge-Event-Id"
"""What an event was called first: by this a consumer knows whether it has handled it."""
FOR_CONSUMER = "Drawbridge-Consumer"
"""The only consumer that is to handle a replayed event; and whose dead letter it is."""
PATIENCE_SECONDS = 10.0

_SUBJECT = "Drawbridge-Subject"
_STREAM = "Drawbridge-Stream"
_SEQUENCE = "Drawbridge-Stream-Sequence"
_REASON = "Drawbridge-Reason"
_ERROR = "Drawbridge-Error"
_DELIVERIES = "Drawbridge-Deliveries"
_TIME = "Drawbridge-Time"
_LONGEST_ERROR = 500
_GONE = 10057  # JetStream's code for deleting what is not there


class Undeliverable(Exception):
    """An event cannot be handled: UNDECODABLE, NO_EVENT_ID, INVALID_EVENT or HANDLER_FAILED."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


async def put(bus: Bus, consumer: str, delivered: Msg, why: Undeliverable) -> None:
    """Keeps an event as a dead letter; again after a crash, it is kept once. Raises BusUnavailable, EventRefused."""
    metadata, headers = delivered.metadata, delivered.headers or {}
    where = f"{consumer}.{metadata.stream}.{metadata.sequence.stream}"
    error = " ".join(str(why).split()).encode("ascii", "backslashreplace").decode()
    letter = {
        MESSAGE_ID: f"{where}.{metadata.timestamp.timestamp()}",  # a stream that is made anew counts from 1 again
        ORIGINAL_ID: headers.get(ORIGINAL_ID) or headers.get(MESSAGE_ID, ""),
        FOR_CONSUMER: consumer,
        _SUBJECT: delivered.subject,
        _STREAM: metadata.stream,
        _SEQUENCE: str(metadata.sequence.stream),
        _REASON: why.reason,
        _ERROR: error[:_LONGEST_ERROR],
        _DELIVERIES: str(metadata.num_delivered),
        _TIME: datetime.now(UTC).isoformat(timespec="milliseconds"),
        TRACEPARENT: headers.get(TRACEPARENT, ""),
    }
    await bus.publish(DEADLETTER, f"{DEADLETTER}.{consumer}", delivered.data, letter)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was not handled."""

    id: int
    """Its sequence in the stream of dead letters."""
    payload: bytes
    headers: Mapping[str, str]


async def stored(bus: Bus) -> AsyncIterator[DeadLetter]:
    """Yields what is there now, oldest first. Raises BusUnavailable."""
    jetstream = await bus.stream(DEADLETTER)
    try:
        last = (await jetstream.stream_info(DEADLETTER)).state.last_seq
        sequence = 0
        while sequence < last:
            found = await jetstream.get_msg(DEADLETTER, seq=sequence + 1, subject=f"{DEADLETTER}.>", next=True)
            sequence = found.seq or last
            if sequence <= last:
                yield DeadLetter(sequence, found.data or b"", found.headers or {})
    except NotFoundError:
        return
    except nats.errors.Error as error:
        raise BusUnavailable from error


async def replay(bus: Bus, letter: DeadLetter) -> None:
    """Publishes an event again, and then forgets the dead letter. Raises BusUnavailable, EventRefused.

    Done twice, at once or after a crash, it is one replay: the new message's id is made of the letter's own.
    """
    old = letter.headers
    if not {MESSAGE_ID, FOR_CONSUMER, _STREAM, _SUBJECT} <= old.keys():
        raise EventRefused("It does not say where it is from.")
    headers = {MESSAGE_ID: f"replay.{old[MESSAGE_ID]}", FOR_CONSUMER: old[FOR_CONSUMER]}
    headers |= {name: old[name] for name in (ORIGINAL_ID, TRACEPARENT) if old.get(name)}
    await bus.publish(old[_STREAM], old[_SUBJECT], letter.payload, headers)
    jetstream = await bus.stream(DEADLETTER)
    try:
        await jetstream.delete_msg(DEADLETTER, letter.id)
    except nats.errors.Error as error:
        if getattr(error, "err_code", None) != _GONE:  # somebody else did the same
            raise BusUnavailable from error


_COLUMNS = {
    "TIME": _TIME,
    "CONSUMER": FOR_CONSUMER,
    "SUBJECT": _SUBJECT,
    "TRIES": _DELIVERIES,
    "REASON": _REASON,
    "ERROR": _ERROR,
}


def _row(first: object, cells: Sequence[str]) -> str:
    time, consumer, subject, deliveries, reason, error = cells
    return f"{first!s:>6}  {time:<29}  {consumer:<12}  {subject:<44}  {deliveries:>5}  {reason:<14}  {error}"


def _told(letter: DeadLetter) -> str:
    return _row(letter.id, [letter.headers.get(header, "?") for header in _COLUMNS.values()])


async def _list(bus: Bus) -> None:
    letters = [letter async for letter in stored(bus)]
    if not letters:
        print("There are no dead letters.")
        return
    print(_row("ID", list(_COLUMNS)), *map(_told, letters), sep="\n")
    print("\nTo try them again, once what failed is mended: replay all, or replay ID... (make deadletters REPLAY=all)")


async def _replay(bus: Bus, wanted: set[str]) -> None:
    done, missing = 0, wanted - {"all"}
    async for letter in stored(bus):
        if "all" in wanted or str(letter.id) in wanted:
            missing.discard(str(letter.id))
            try:
                await replay(bus, letter)
            except EventRefused as error:
                print(f"{_told(letter)}\n        stays: {error}")
            else:
                print(_told(letter))
                done += 1
    print(f"{done} replayed.")
    if missing:
        sys.exit(f"There is no dead letter {', '.join(sorted(missing))}.")


class Settings(BusSettings, TlsSettings):
    """What the command needs to know."""


async def main(settings: Settings, arguments: Sequence[str]) -> None:
    """Lists or replays."""
    async with open_bus(settings.nats_url, Identity.of(settings)) as bus:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await bus.connected()
            match arguments:
                case ["list"]:
                    await _list(bus)
                case ["replay", *wanted]:
                    await _replay(bus, set(wanted))
        except (TimeoutError, BusUnavailable):
            sys.exit(f"NATS does not answer at {settings.nats_url}.")


if __name__ == "__main__":
    if sys.argv[1:] != ["list"] and not (sys.argv[1:2] == ["replay"] and sys.argv[2:]):
        sys.exit(__doc__)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # NATS's client ends its TLS in a way that it warns of
    uvloop.run(main(config.load(Settings), sys.argv[1:]))
