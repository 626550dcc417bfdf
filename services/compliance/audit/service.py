"""The servicer of the audit: it merges what all services have."""

import asyncio
import hashlib
import heapq
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, Protocol

import grpc
from common.v1 import audit_pb2
from compliance.v1 import audit_pb2 as service_pb2
from compliance.v1 import audit_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.compliance.audit.domain import UnknownService, require_time
from services.runtime import paging
from services.runtime.trail import Entries
from services.runtime.validation import require_valid

Context = grpc.aio.ServicerContext[Any, Any]


class Readable(Protocol):
    """One service's audit trail, wherever it is."""

    async def list(self, request: audit_pb2.ListTrailRequest) -> Entries:
        """Returns entries, newest first."""


class AuditService(audit_pb2_grpc.AuditServiceServicer):
    """See proto/compliance/v1/audit.proto."""

    def __init__(self, trails: Mapping[str, Readable]) -> None:
        """`trails` are those of all services, by name."""
        self._trails = trails

    async def ListAuditEntries(
        self, request: service_pb2.ListAuditEntriesRequest, _: Context
    ) -> service_pb2.ListAuditEntriesResponse:
        trails, wanted = self._asked(request.service), _filter(request)
        digest = hashlib.sha256(wanted.SerializeToString(deterministic=True)).hexdigest()
        page = paging.page(request.page_size, request.page_token, "audit", request.service, digest)
        listing = audit_pb2.ListTrailRequest(filter=wanted, before=page.before, limit=page.rows)
        require_valid(listing)
        found = await asyncio.gather(*(trail.list(listing) for trail in trails))
        newest = heapq.merge(*found, key=lambda entry: entry.id, reverse=True)
        entries, token = page.cut(list(islice(newest, page.rows)), lambda entry: entry.id)
        return service_pb2.ListAuditEntriesResponse(entries=entries, next_page_token=token)

    def _asked(self, service: str) -> Collection[Readable]:
        if not service:
            return self._trails.values()
        if service not in self._trails:
            raise UnknownService(service, self._trails)
        return [self._trails[service]]


def _filter(request: service_pb2.ListAuditEntriesRequest) -> audit_pb2.AuditFilter:
    wanted = audit_pb2.AuditFilter(actor_id=request.actor_id, resource=request.resource, action=request.action)
    if request.HasField("start_time"):
        wanted.start_time.CopyFrom(_time(request.start_time, "startTime"))
    if request.HasField("end_time"):
        wanted.end_time.CopyFrom(_time(request.end_time, "endTime"))
    return wanted


def _time(time: Timestamp, field: str) -> Timestamp:
    require_time(time.seconds, time.nanos, field)
    return time
