"""Makes it the next signing key's turn before its time, or at once where a key has leaked.

Usage: python -m services.user.rotate [--revoke KID], with the environment of the user service. Without --revoke
replicas follow within a minute, and no token is refused. With it all tokens of that key are, within a second.
"""

import argparse
import asyncio
import sys
from datetime import UTC, datetime

import uvloop

from services.runtime import config
from services.runtime.bus import MESSAGE_ID, SESSION, BusUnavailable, open_bus
from services.runtime.config import BusSettings, DatabaseSettings, TlsSettings
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from services.runtime.postgres import open_database
from services.runtime.tls import Identity
from services.user import events
from services.user.store import SigningKeys

_PATIENCE_SECONDS = 5.0


class RevokeSettings(DatabaseSettings, BusSettings, TlsSettings):
    """What revoking needs to know."""


async def rotate(settings: DatabaseSettings) -> None:
    """Hastens the rotation."""
    async with open_database(settings.database_url) as database:
        await SigningKeys(database).hasten(datetime.now(UTC))


async def revoke(settings: RevokeSettings, kid: str) -> bool:
    """Revokes a key. Returns whether there was such a key."""
    now = datetime.now(UTC)
    async with (
        open_database(settings.database_url) as database,
        open_bus(settings.nats_url, Identity.of(settings)) as bus,
    ):
        if not await SigningKeys(database).revoke(kid, now, Outbox("user", database, bus)):
            return False
        subject, event = f"{SESSION}.{kid}", events.session_ended(kid, "", now).SerializeToString()
        try:
            # Sooner than the service notices what is in its outbox.
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await bus.connected()
                await bus.publish(SESSION, subject, event, {MESSAGE_ID: f"{subject}.{new_id('evt')}"})
        except (TimeoutError, BusUnavailable):
            print("NATS cannot be reached: the service will tell, as soon as it can", file=sys.stderr)
    return True


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m services.user.rotate")
    parser.add_argument("--revoke", metavar="KID", help="the id of a key that has leaked")
    kid = parser.parse_args().revoke
    if kid is None:
        uvloop.run(rotate(config.load(DatabaseSettings)))
    elif not uvloop.run(revoke(config.load(RevokeSettings), kid)):
        sys.exit(f"There is no signing key {kid}")


if __name__ == "__main__":
    main()
