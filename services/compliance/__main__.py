"""Starts the compliance service."""

from functools import partial
from pathlib import Path

import uvloop
from compliance.v1 import audit_pb2_grpc, compliance_pb2_grpc

from services.compliance.audit.clients import TrailElsewhere
from services.compliance.audit.service import AuditService
from services.compliance.events import follow_users
from services.compliance.sanctions import Sanctions
from services.compliance.service import ComplianceService
from services.compliance.store import Profiles, SanctionsList, Screenings
from services.runtime import clients, config, contract, sweep
from services.runtime.bus import open_bus
from services.runtime.config import BusSettings, DatabaseSettings, ServerSettings
from services.runtime.postgres import open_database
from services.runtime.server import serve
from services.runtime.tls import Identity
from services.runtime.trail import Trail


class Settings(ServerSettings, DatabaseSettings, BusSettings):
    """What the compliance service needs to know."""

    sanctions_list: Path
    velocity_limit_per_hour: int = 1000
    user_address: str
    payment_address: str
    document_address: str
    notification_address: str


async def main(settings: Settings) -> None:
    """Composes the service and serves."""
    identity, methods = Identity.of(settings), contract.load(settings.contract)
    async with open_database(settings.database_url) as database, open_bus(settings.nats_url, identity) as bus:
        profiles, screenings = Profiles(database), Screenings(database, settings.velocity_limit_per_hour)
        sanctions = Sanctions(settings.sanctions_list, SanctionsList(database))
        servicer = ComplianceService(profiles, sanctions, screenings)
        trail = Trail("compliance", database)
        trails = {
            name: TrailElsewhere(name, clients.connect(name, getattr(settings, f"{name}_address"), identity, methods))
            for name in contract.services(methods) - {"compliance"}
        }
        audit = AuditService({"compliance": trail, **trails})
        register = [
            partial(compliance_pb2_grpc.add_ComplianceServiceServicer_to_server, servicer),
            partial(audit_pb2_grpc.add_AuditServiceServicer_to_server, audit),
        ]
        background = [
            sanctions.follow(),
            follow_users(bus, database, profiles),
            sweep.handled_events(database).run(),
        ]
        ready = [database.ping, sanctions.check]
        await serve("compliance", settings, register, background=background, ready=ready, trail=trail)


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
