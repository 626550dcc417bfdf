"""What compliance asks of all other services."""

import grpc
from common.v1 import audit_pb2, audit_pb2_grpc

from services.compliance.audit.domain import AuditTrailUnavailable
from services.runtime.trail import Entries


class TrailElsewhere:
    """Another service's audit trail."""

    def __init__(self, service: str, channel: grpc.aio.Channel) -> None:
        self._service = service
        self._stub: audit_pb2_grpc.AuditTrailServiceAsyncStub = audit_pb2_grpc.AuditTrailServiceStub(channel)

    async def list(self, request: audit_pb2.ListTrailRequest) -> Entries:
        """Returns entries, newest first. Raises AuditTrailUnavailable."""
        try:
            return (await self._stub.ListTrail(request)).entries
        except grpc.aio.AioRpcError as error:
            raise AuditTrailUnavailable(service=self._service) from error
