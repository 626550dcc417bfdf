"""Idempotency keys: a request that moves money is carried out once per caller, RPC and key.

The claim is written in the transaction of the effect, with the answer: there is no key without its effect, no
effect without its key, and no key that stays locked after a crash. The rules are those of the IETF draft
"The Idempotency-Key HTTP Header Field".
"""

import hashlib
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf import symbol_database
from google.protobuf.message import Message

from services.runtime import caller
from services.runtime.errors import AlreadyExists, FieldViolation, InvalidArgument
from services.runtime.interceptors import Call, Layer, Proceed
from services.runtime.postgres import Connection, Database

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


class _Lost(Exception):
    """Another request with this key was carried out first: this one's transaction rolls back."""


@dataclass(frozen=True, slots=True)
class _Claim:
    caller_id: str
    rpc: str
    key: str
    request_sha256: bytes


_current: ContextVar[_Claim] = ContextVar("idempotency_claim")


async def record(connection: Connection, answer: Message) -> None:
    """Writes the current call's key and its answer, in the transaction of its effect and at its end."""
    claim = _current.get()
    done = await connection.execute(
        _CLAIM,
        claim.caller_id,
        claim.rpc,
        claim.key,
        claim.request_sha256,
        answer.SerializeToString(deterministic=True),
    )
    if done == "INSERT 0 0":
        raise _Lost


def interceptor(database: Database) -> Layer:
    """Returns the layer that answers a repeated request as it was answered first."""

    async def idempotency(call: Call, proceed: Proceed) -> Message | None:
        if not call.method.idempotency_key:
            return await proceed(call)
        claim = _Claim(
            caller.current().user_id,
            call.method.rpc,
            _key([str(value) for name, value in call.context.invocation_metadata() or () if name == _HEADER]),
            hashlib.sha256(call.request.SerializeToString(deterministic=True)).digest(),
        )
        answer = await _replay(database, call, claim)
        if answer is not None:
            return answer
        _current.set(claim)
        try:
            return await proceed(call)
        except _Lost:
            return await _replay(database, call, claim)

    return idempotency


async def _replay(database: Database, call: Call, claim: _Claim) -> Message | None:
    """Returns what was answered under the key, if anything was. Raises IdempotencyKeyReused."""
    row = await database.fetchrow(_FIND, claim.caller_id, claim.rpc, claim.key)
    if row is None:
        return None
    if row["request_sha256"] != claim.request_sha256:
        raise IdempotencyKeyReused
    call.headers.append(("idempotent-replayed", "true"))
    answer: Message = symbol_database.Default().GetSymbol(call.method.response_type).FromString(row["response"])
    return answer


def _key(headers: Sequence[str]) -> str:
    if not headers:
        raise IdempotencyKeyRequired
    match = _KEY.fullmatch(headers[0].strip()) if len(headers) == 1 else None
    if match is None:
        raise InvalidIdempotencyKey
    return match[1] or match[2]
