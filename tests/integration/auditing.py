"""Audit trails as officers read them: compliance, and what all the others have done, in real databases."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from common.v1.audit_pb2 import AuditEntry
from compliance.v1 import audit_pb2, audit_pb2_grpc

from services.compliance.audit.clients import TrailElsewhere
from services.compliance.audit.service import AuditService
from services.runtime import audit, caller, clients, contract
from services.runtime.caller import Caller
from services.runtime.postgres import Database, open_database
from services.runtime.trail import Trail
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import METHODS, As, identity, serving

CREATE_PAYMENT = "/payment.v1.PaymentService/CreatePayment"


async def entries(database: Database, resource: str | None = None) -> list[asyncpg.Record]:
    """What a service's database says was done, to a resource or to all, the first first."""
    return await database.fetch("SELECT * FROM audit WHERE $1::text IS NULL OR resource = $1 ORDER BY id", resource)


async def actions(database: Database, resource: str | None = None) -> list[tuple[str, str]]:
    """The same in short: who did what."""
    return [(row["actor_id"], row["action"].rpartition("/")[2]) for row in await entries(database, resource)]


async def record(database: Database, resource: str, who: Caller | None) -> None:
    """Records that somebody did something, as a service does."""

    async def act() -> None:
        if who:
            caller.set_current(who)
        async with database.transaction() as connection:
            await audit.record(connection, resource)

    await asyncio.create_task(act())  # whose caller ends with it


def somebody(user_id: str = "usr_1", rpc: str = CREATE_PAYMENT, peer: str = "edge") -> Caller:
    """A customer who calls something."""
    return Caller(user_id, frozenset({"customer"}), "ses_1", peer, "192.0.2.1", "req_1", rpc)


@dataclass
class Office:
    """Compliance, and the trails of all services."""

    databases: dict[str, Database]
    edge: As
    away: dict[str, AsyncExitStack]
    """What ends a service's server."""

    def asks(self, *roles: str) -> "audit_pb2_grpc.AuditServiceAsyncStub":
        """An officer, unless told otherwise."""
        return audit_pb2_grpc.AuditServiceStub(self.edge.user("usr_officer", *(roles or ("officer",))))

    async def page(self, **asked: Any) -> Sequence[AuditEntry]:
        """A page of what was done."""
        return (await self.asks().ListAuditEntries(audit_pb2.ListAuditEntriesRequest(**asked))).entries

    async def did(self, **asked: Any) -> list[str]:
        """The resources of what was done."""
        return [entry.resource for entry in await self.page(**asked)]


@asynccontextmanager
async def open_office(fresh_database: FreshDatabase, certificates: Path) -> AsyncIterator[Office]:
    """Opens it."""
    async with AsyncExitStack() as stack:
        databases, away = {}, {}
        trails: dict[str, Trail | TrailElsewhere] = {}
        for name in sorted(contract.services(METHODS)):
            databases[name] = await stack.enter_async_context(open_database(fresh_database(name)))
            trails[name] = trail = Trail(name, databases[name])
            if name != "compliance":
                away[name] = await stack.enter_async_context(AsyncExitStack())
                port = await away[name].enter_async_context(serving([], certificates, name, trail=trail))
                mine = identity(certificates, "compliance")
                channel = clients.connect(name, f"127.0.0.1:{port}", mine, METHODS)
                stack.push_async_callback(channel.close)
                trails[name] = TrailElsewhere(name, channel)
        register = [partial(audit_pb2_grpc.add_AuditServiceServicer_to_server, AuditService(trails))]
        own = Trail("compliance", databases["compliance"])
        port = await stack.enter_async_context(serving(register, certificates, "compliance", trail=own))
        edge = As(port, certificates, "compliance")
        stack.push_async_callback(edge.close)
        yield Office(databases, edge, away)
