"""A service's audit trail: read newest first, by what it is asked for, and told who reads what is somebody else's.

Every service that has a database serves it, to compliance. See docs/operations.md.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any

import asyncpg
import grpc
from common.v1 import audit_pb2, audit_pb2_grpc
from google.protobuf.message import Message

from services.runtime import audit, caller
from services.runtime.contract import EDGE, Method
from services.runtime.interceptors import Call, Proceed
from services.runtime.postgres import Database

EVERYBODY = "customer"
"""The role that all users have: it lets nobody see what is somebody else's."""

_LIST = """
    SELECT id, create_time, actor_id, credential_id, roles, action, resource, request_id
    FROM audit WHERE id < $1"""
_SKEW_MS = 60_000
"""By how much at most the time in an id differs from the time of its entry."""

Entries = Sequence[audit_pb2.AuditEntry]


class Trail:
    """A service's own audit trail."""

    def __init__(self, service: str, database: Database) -> None:
        self._service = service
        self._database = database

    async def list(self, request: audit_pb2.ListTrailRequest) -> Entries:
        """Returns entries, newest first."""
        query = _LIST
        values: list[Any] = [request.before]
        for condition, value in _conditions(request.filter):
            values.append(value)
            query += f" AND {condition.format(len(values))}"
        values.append(request.limit)
        rows = await self._database.fetch(f"{query} ORDER BY id DESC LIMIT ${len(values)}", *values)
        return [_entry(row, self._service) for row in rows]

    async def of_reading(self, call: Call, proceed: Proceed) -> Message | None:
        """The layer that records who reads what is somebody else's, by a role. No answer leaves without its entry."""
        method, request = call.method, call.request
        if method.changes or EDGE not in method.callers:
            return await proceed(call)

        async def seen() -> None:
            if caller.seen_by_role() or (method.roles and EVERYBODY not in method.roles):
                async with self._database.connection() as connection:
                    await audit.record(connection, _resource(method, request))

        if method.server_streaming:
            call.before_first = seen
            return await proceed(call)
        answer = await proceed(call)
        await seen()
        return answer

    def register(self, server: grpc.aio.Server) -> None:
        """Has a server serve it."""
        audit_pb2_grpc.add_AuditTrailServiceServicer_to_server(_AuditTrailService(self), server)


class _AuditTrailService(audit_pb2_grpc.AuditTrailServiceServicer):
    """See proto/common/v1/audit.proto."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    async def ListTrail(  # noqa: N802  # as the contract has it
        self, request: audit_pb2.ListTrailRequest, _: "grpc.aio.ServicerContext[Any, Any]"
    ) -> audit_pb2.ListTrailResponse:
        return audit_pb2.ListTrailResponse(entries=await self._trail.list(request))


def _resource(method: Method, request: Message) -> str:
    """Returns which resource a request reads: its path up to the id, as `payments/pay_1`."""
    path = re.sub(r"^/api/v\d+/|(?<=\})[:/].*$", "", method.bindings[0].template)
    return re.sub(r"\{(\w+)\}", lambda field: str(getattr(request, field[1])), path)


def _conditions(wanted: audit_pb2.AuditFilter) -> Iterator[tuple[str, Any]]:
    """Yields what is wanted, only that: each kind of question has a plan of its own."""
    if wanted.actor_id:
        yield "actor_id = ${}", wanted.actor_id
    if wanted.resource:
        yield "resource = ${}", wanted.resource
    if wanted.action:
        yield ("action = ${}" if "/" in wanted.action else "split_part(action, '/', 3) = ${}"), wanted.action
    if wanted.HasField("start_time"):
        yield "create_time >= ${}", wanted.start_time.ToDatetime(UTC)
        yield "id >= ${}", _first_id(wanted.start_time.ToMilliseconds() - _SKEW_MS)
    if wanted.HasField("end_time"):
        yield "create_time < ${}", wanted.end_time.ToDatetime(UTC)
        yield "id < ${}", _first_id(wanted.end_time.ToMilliseconds() + _SKEW_MS)


def _first_id(milliseconds: int) -> str:
    """Returns what sorts before the ids from then on, so that an index finds them: a UUIDv7 begins with its time."""
    return f"aud_{max(0, milliseconds):012x}"


def _entry(row: asyncpg.Record, service: str) -> audit_pb2.AuditEntry:
    told = dict(row)
    create_time = told.pop("create_time")
    entry = audit_pb2.AuditEntry(service=service, **told)
    entry.create_time.FromDatetime(create_time)
    return entry
