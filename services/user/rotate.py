"""Makes it the next signing key's turn before its time. Replicas follow within a minute.

Usage: python -m services.user.rotate, with DATABASE_URL in the environment.
"""

import asyncio
from datetime import UTC, datetime

from pydantic_settings import BaseSettings

from services.runtime import config
from services.runtime.postgres import open_database
from services.user.store import SigningKeys


class _Settings(BaseSettings):
    database_url: str


async def main(settings: _Settings) -> None:
    """Hastens the rotation."""
    async with open_database(settings.database_url) as database:
        await SigningKeys(database).hasten(datetime.now(UTC))


if __name__ == "__main__":
    asyncio.run(main(config.load(_Settings)))
