"""Good clients, and the log of all they asked for and were answered: what the promises are held against.

A good client has one Idempotency-Key for each thing it wants, and sends the same request until it is answered.
"""

import json
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import jsonschema

from tests.edge.contract.edge import reason_of
from tests.edge.people import Json, People, Person
from tests.traffic.customers import FOR_NOW

PATIENCE_SECONDS = 120.0
"""How long a client tries to get one thing done."""
LOGGED_IN_SECONDS = 300.0
"""How old access tokens may be when a test begins; they live for ten minutes."""
CHANCE = secrets.SystemRandom()
IN_USE = (409, "IDEMPOTENCY_KEY_IN_USE")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request."""

    status: int
    """Of HTTP; 0 where nothing came."""
    reason: str
    """Of an error, or what became of the connection; empty for success."""
    content: bytes
    location: str
    replayed: bool
    retry_after: int
    """Seconds; 0 where none are named."""
    seconds: float
    """How long it took."""
    time: datetime

    @property
    def good(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300

    def json(self) -> Json:
        """What it says."""
        found: Json = json.loads(self.content)
        return found

    @property
    def for_now(self) -> bool:
        """Whether a good client sends the same request again: it does not know what came of this one."""
        return self.status == 0 or (self.status, self.reason) in FOR_NOW | {IN_USE, (401, "TOKEN_EXPIRED")}


@dataclass(slots=True)
class Wish:
    """One thing that somebody wants done once, and all answers to the requests that ask for it."""

    kind: str
    """`payment`, `deposit`, `refund`..."""
    who: Person
    path: str
    body: Json
    key: str
    """Its Idempotency-Key; empty for what needs none."""
    cents: int = 0
    file: bytes = b""
    """What is uploaded; empty where the body is JSON."""
    answers: list[Answer] = field(default_factory=list)

    @property
    def granted(self) -> list[Answer]:
        """The answers that say that it was done."""
        return [answer for answer in self.answers if answer.good]

    @property
    def settled(self) -> bool:
        """Whether there is an answer that stands."""
        return any(not answer.for_now for answer in self.answers)

    def told(self) -> Json:
        """What was granted first."""
        return self.granted[0].json()

    def __str__(self) -> str:
        """For people who look for it in logs."""
        answers = ", ".join(f"{one.time:%H:%M:%S.%f} {one.status} {one.reason}" for one in self.answers[-6:])
        return f"{self.kind} {self.key or self.path} by {self.who.id}: {len(self.answers)} answers, at last {answers}"


class Log:
    """Everything that clients have wished for. Any number of threads may add to it."""

    def __init__(self, people: People) -> None:
        self.wishes: list[Wish] = []
        self._people = people
        self._renewing = threading.Lock()
        self._all_logged_in = time.monotonic()

    def wish(
        self, kind: str, who: Person, path: str, body: Json, *, keyed: bool = True, cents: int = 0, file: bytes = b""
    ) -> Wish:
        """Adds something to be asked for."""
        wish = Wish(kind, who, path, body, secrets.token_hex(8) if keyed else "", cents, file)
        self.wishes.append(wish)
        return wish

    def fulfil(self, wish: Wish) -> Answer:
        """Asks until there is an answer that stands, and returns it. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := self.ask(wish)).for_now:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer in {PATIENCE_SECONDS} s: {wish}")
            if answer.reason == "TOKEN_EXPIRED":
                self._renew(wish.who)
            # Sooner than Retry-After says, which a good client would heed: the more of them meet.
            time.sleep(CHANCE.uniform(0.05, max(answer.retry_after, 0.2)))
        return answer

    def unanswered(self) -> list[Wish]:
        """Returns what was asked for and is not answered yet."""
        return [wish for wish in self.wishes if wish.answers and not wish.settled]

    def ask(self, wish: Wish) -> Answer:
        """Asks once."""
        headers = {"idempotency-key": wish.key} if wish.key else {}
        time_sent, started = datetime.now(UTC), time.monotonic()
        try:
            response = wish.who.client.post(f"/api/v1/{wish.path}", headers=headers, **_content(wish))
        except httpx.TransportError as error:
            answer = nothing(error, time.monotonic() - started, time_sent)
        else:
            answer = answer_of(response, time.monotonic() - started, time_sent)
        wish.answers.append(answer)
        return answer

    def keep_logged_in(self, persons: Iterable[Person]) -> None:
        """Logs everybody in anew, if that was a while ago."""
        if time.monotonic() - self._all_logged_in > LOGGED_IN_SECONDS:
            for person in persons:
                self._renew(person)
            self._all_logged_in = time.monotonic()

    def _renew(self, person: Person) -> None:
        """Logs somebody in anew; another time, when that is not possible now."""
        with self._renewing:
            try:
                again = self._people.log_in(person.id, person.email, person.password)
            except httpx.HTTPError:
                return
            person.client.headers["authorization"] = again.client.headers["authorization"]


def _content(wish: Wish) -> dict[str, Any]:
    if not wish.file:
        return {"json": wish.body}
    return {"data": wish.body, "files": {"file": ("file.png", wish.file, "image/png")}}


def answer_of(response: httpx.Response, seconds: float, sent: datetime) -> Answer:
    """Reads a response."""
    headers = response.headers
    return Answer(
        status=response.status_code,
        reason="" if response.is_success else _reason(response),
        content=response.content,
        location=headers.get("location", ""),
        replayed=headers.get("idempotent-replayed") == "true",
        retry_after=int(headers.get("retry-after", 0)),
        seconds=seconds,
        time=sent,
    )


def _reason(response: httpx.Response) -> str:
    try:
        return reason_of(response)
    except (AssertionError, KeyError, ValueError, jsonschema.ValidationError):
        return f"NOT_IN_THE_ONE_SHAPE: {response.text[:200]}"


def nothing(error: httpx.TransportError, seconds: float, sent: datetime) -> Answer:
    """No response came."""
    return Answer(0, type(error).__name__, b"", "", replayed=False, retry_after=0, seconds=seconds, time=sent)


def money(cents: int) -> Json:
    """Returns an amount of EUR as the API takes it."""
    return {"currencyCode": "EUR", "units": str(cents // 100), "nanos": cents % 100 * 10_000_000}


def pay(log: Log, payer: Person, payee: Person, cents: int) -> Wish:
    """Wishes for a payment. Its description is its key."""
    wish = log.wish("payment", payer, "payments", {"payeeId": payee.id, "amount": money(cents)}, cents=cents)
    wish.body["description"] = wish.key
    return wish


def upload(log: Log, owner: Person, kind: str, file: bytes) -> Wish:
    """Wishes for a document to be kept."""
    return log.wish("upload", owner, "documents/upload", {"kind": kind}, file=file)


def deposit(log: Log, treasurer: Person, account_id: str, cents: int) -> Wish:
    """Wishes for money to be paid in."""
    return log.wish("deposit", treasurer, f"accounts/{account_id}:deposit", {"amount": money(cents)}, cents=cents)


def errors(wishes: Sequence[Wish]) -> list[Answer]:
    """Returns all answers that say that something is away or late, or that never came."""
    return [answer for wish in wishes for answer in wish.answers if answer.for_now]
