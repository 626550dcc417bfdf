"""The first admin, made from the environment: somebody has to give the others their roles."""

import asyncio
from contextlib import suppress
from datetime import UTC, date, datetime

from services.runtime.errors import Unavailable
from services.runtime.ids import new_id
from services.runtime.worker import repeat
from services.user.domain import ROLES, EmailAlreadyExists, Profile, User
from services.user.passwords.hashing import Passwords
from services.user.store import Users

_PROFILE = Profile(display_name="First Administrator", country="DE", date_of_birth=date(1980, 1, 1), address="")
_CHECK_SECONDS = 3600.0


class FirstAdminMissing(Unavailable):
    """The database has not been reached yet to make the first admin."""

    message = "The first admin does not exist yet."


class FirstAdmin:
    """Signs the first admin up, unless there is a user with this address: its password is not touched again."""

    def __init__(self, users: Users, passwords: Passwords, email: str, password: str) -> None:
        self._users = users
        self._passwords = passwords
        self._email = email
        self._password = password
        self._exists = False

    async def run(self) -> None:
        """Signs the admin up as soon as the database answers."""
        await repeat(self.sign_up, asyncio.Event(), _CHECK_SECONDS)

    async def sign_up(self) -> bool:
        """Signs the admin up with every role. Another replica may be faster."""
        if await self._users.credentials(self._email) is None:
            admin = User.new(new_id("usr"), self._email, _PROFILE, frozenset(ROLES), datetime.now(UTC))
            with suppress(EmailAlreadyExists):
                await self._users.add(admin, await self._passwords.hash(self._password))
        self._exists = True
        return False

    async def ready(self) -> None:
        """Raises FirstAdminMissing until the admin can log in."""
        if not self._exists:
            raise FirstAdminMissing
