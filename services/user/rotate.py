"""Makes it the next signing key's turn before its time. Replicas follow within a minute.

Usage: python -m services.user.rotate, with DATABASE_URL in the environment.
"""

import asyncio
from datetime import UTC, datetime

from services.runtime import config
from services.runtime.config import DatabaseSettings
from services.runtime.postgres import open_database
from services.user.store import SigningKeys


async def main(settings: DatabaseSettings) -> None:
    """Hastens the rotation."""
    async with open_database(settings.database_url) as database:
        await SigningKeys(database).hasten(datetime.now(UTC))


if __name__ == "__main__":
    asyncio.run(main(config.load(DatabaseSettings)))
