"""Idempotency keys: a request that moves money, or an upload that has one, is carried out once per caller, RPC and key.

The claim is written in the transaction of the effect, with the answer: there is no key without its effect, no
effect without its key, and no key that stays locked after a crash. Whoever repeats a request that is still running
waits a moment for its answer. The rules are those of the IETF draft "The Idempotency-Key HTTP Header Field".
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf import symbol_database
from google.protobuf.message import Message

from services.runtime import caller, deadline
from services.runtime.clients import MARGIN_SECONDS
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    Error,
    FieldViolation,
    InvalidArgument,
    Unavailable,
)
from services.runtime.interceptors import Call, Layer, Proceed
from services.runtime.keylocks import Key, KeyLocks, Stored
from services.runtime.postgres import Connection, Database

WAIT_SECONDS = 1.0
"""How long a repeated request waits for the one that is running."""
POLL_SECONDS = 0.05
"""How often it looks whether the one on another replica has ended."""

Answer = TypeVar("Answer", bound=Message)

_HEADER = "idempotency-key"
# 1 to 255 visible characters, bare or as a quoted string (RFC 8941, 3.3.3)
_KEY = re.compile(r'"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e][\x21-\x7e]{0,254})')

_FIND = "SELECT request_sha256, response FROM idempotency_keys WHERE caller_id = $1 AND rpc = $2 AND key = $3"
_CLAIM = """
    INSERT INTO idempotency_keys (caller_id, rpc, key, request_sha256, response) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING"""


class IdempotencyKeyRequired(InvalidArgument):
    """The request moves money and has no key."""

    message = "Send an Idempotency-Key header: a new one for each request, the same one when you try again."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("Idempotency-Key", "is required", "required")])


class InvalidIdempotencyKey(InvalidArgument):
    """The key is not 1 to 255 visible ASCII characters, or there are two."""

    message = "There must be one Idempotency-Key header, of 1 to 255 visible ASCII characters."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("Idempotency-Key", "must have 1 to 255 visible characters", "pattern")])


class IdempotencyKeyReused(AlreadyExists):
    """The key was used for another request."""

    http_status = 422
    message = "The Idempotency-Key was used for another request. Use a new key for a new request."


class IdempotencyKeyInUse(Aborted):
    """The request with this key is still running."""

    message = "The request with this Idempotency-Key is still running. Send it again a little later, with the same key."
    retry_after = 1.0


class _Lost(Exception):
    """The request was carried out before: this one's transaction, if it has begun, rolls back."""


@dataclass(slots=True)
class _Claim:
    key: Key
    request_sha256: bytes
    response: bytes | None = None
    """The answer that was written last. It counts when the handler has ended well."""
    stored: Stored | None = None
    """What was stored under the key of a client stream when it began."""


@dataclass(slots=True)
class _Running:
    """A key in use in this process."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    request_sha256: bytes | None = None
    """Of the request that is being carried out; None while it is not known whether another replica does that."""
    stored: Stored | None = None
    """What is stored under the key, once it is known to be."""


_current: ContextVar[_Claim] = ContextVar("idempotency_claim")


async def record(connection: Connection, answer: Message) -> None:
    """Writes the current call's key, if it has one, and its answer, in the transaction of its effect and at its end."""
    claim = _current.get(None)
    if claim is None:
        return
    key, response = claim.key, answer.SerializeToString(deterministic=True)
    done = await connection.execute(_CLAIM, key.caller_id, key.rpc, key.key, claim.request_sha256, response)
    if done == "INSERT 0 0":
        raise _Lost
    claim.response = response


def answered() -> bool:
    """Tells whether something is stored under the current call's key: see `of_streams`."""
    claim = _current.get(None)
    return claim is not None and claim.stored is not None


def identify(request_sha256: bytes) -> None:
    """Says what a client stream has turned out to be. If it was carried out before, that ends it: see `of_streams`."""
    claim = _current.get(None)
    if claim is not None:
        claim.request_sha256 = request_sha256
        if claim.stored is not None:
            raise _Lost


def interceptor(database: Database) -> Layer:
    """Returns the layer that answers a repeated request as it was answered first."""
    return _Requests(database).layer


def of_streams(database: Database) -> Layer:
    """Returns the layer for client streams, where a key is optional and what is sent is known only at the end.

    The handler says so by `identify`. Of two that run at once, both take in what is sent, and one carries it out.
    """

    async def layer(call: Call, proceed: Proceed) -> Message | None:
        if not call.method.client_streaming or _HEADER not in call.metadata:
            return await proceed(call)
        claim = _Claim(Key(caller.current().user_id, call.method.rpc, _key(_headers(call))), b"")
        claim.stored = await _find(database, claim.key)
        _current.set(claim)
        try:
            return await proceed(call)
        except _Lost:
            stored = claim.stored or await _find(database, claim.key)
            if stored is None:
                raise IdempotencyKeyInUse from None
            return _replay(call, claim, stored)

    return layer


class _Requests:
    """The requests with keys that this process has in hand."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks = KeyLocks(database)
        self._running: dict[Key, _Running] = {}

    async def layer(self, call: Call, proceed: Proceed) -> Message | None:
        """Carries a request out, or answers as it was answered before.

        Raises IdempotencyKeyRequired, InvalidIdempotencyKey, IdempotencyKeyReused or IdempotencyKeyInUse.
        """
        if not call.method.idempotency_key:
            return await proceed(call)
        text = _key(_headers(call))
        claim = _Claim(
            Key(caller.current().user_id, call.method.rpc, text),
            hashlib.sha256(call.request.SerializeToString(deterministic=True)).digest(),
        )
        until = _until()
        while (running := self._running.get(claim.key)) is not None:
            if running.request_sha256 not in (None, claim.request_sha256):
                raise IdempotencyKeyReused
            await _ended(running, until)
            if running.stored is not None:
                return _replay(call, claim, running.stored)
        running = self._running[claim.key] = _Running()
        try:
            return await self._alone(call, proceed, claim, running, until)
        finally:
            del self._running[claim.key]
            running.ended.set()
            self._locks.free(claim.key)

    async def _alone(
        self, call: Call, proceed: Proceed, claim: _Claim, running: _Running, until: float
    ) -> Message | None:
        """Does so for the one request that has the key in this process, as soon as no other replica has it."""
        taken = await self._locks.take(claim.key)
        while taken.in_use:
            if asyncio.get_running_loop().time() + POLL_SECONDS > until:
                raise IdempotencyKeyInUse
            await asyncio.sleep(POLL_SECONDS)
            taken = await self._locks.take(claim.key)
        running.stored = taken.stored if taken.known else await _find(self._database, claim.key)
        if running.stored is not None:
            return _replay(call, claim, running.stored)
        running.request_sha256 = claim.request_sha256
        _current.set(claim)
        try:
            answer = await proceed(call)
        except (Unavailable, DeadlineExceeded):  # this says "try again" already
            raise
        except (Error, _Lost) as error:
            # Where it was not known that the key is in use, another request's effect may be what was in the way.
            running.stored = await _find(self._database, claim.key)
            if running.stored is not None:
                return _replay(call, claim, running.stored)
            if isinstance(error, _Lost):
                raise IdempotencyKeyInUse from None
            raise
        if claim.response is not None:
            running.stored = Stored(claim.request_sha256, claim.response)
        return answer


async def _find(database: Database, key: Key) -> Stored | None:
    row = await database.fetchrow(_FIND, key.caller_id, key.rpc, key.key)
    return None if row is None else Stored(row["request_sha256"], row["response"])


def _until() -> float:
    """Returns the loop's time until which to wait for another request: the caller is to get an answer in time."""
    remaining = deadline.remaining()
    wait = WAIT_SECONDS if remaining is None else min(WAIT_SECONDS, remaining - MARGIN_SECONDS)
    return asyncio.get_running_loop().time() + wait


async def _ended(running: _Running, until: float) -> None:
    try:
        async with asyncio.timeout_at(until):
            await running.ended.wait()
    except TimeoutError:
        if not running.ended.is_set():
            raise IdempotencyKeyInUse from None


def _replay(call: Call, claim: _Claim, stored: Stored) -> Message:
    if stored.request_sha256 != claim.request_sha256:
        raise IdempotencyKeyReused
    call.headers.append(("idempotent-replayed", "true"))
    answer: Message = symbol_database.Default().GetSymbol(call.method.response_type).FromString(stored.response)
    return answer


def _headers(call: Call) -> list[str]:
    return [str(value) for name, value in call.context.invocation_metadata() or () if name == _HEADER]


def _key(headers: Sequence[str]) -> str:
    if not headers:
        raise IdempotencyKeyRequired
    match = _KEY.fullmatch(headers[0].strip()) if len(headers) == 1 else None
    if match is None:
        raise InvalidIdempotencyKey
    return match[1] or match[2]
