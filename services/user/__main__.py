"""Starts the user service."""

from functools import partial

import pycountry
import uvloop
from pydantic import Field, SecretStr
from user.v1 import api_key_pb2_grpc, password_pb2_grpc, user_pb2_grpc

from services.runtime import config
from services.runtime.bus import open_bus
from services.runtime.config import BusSettings, DatabaseSettings, ServerSettings
from services.runtime.outbox import Outbox
from services.runtime.postgres import open_database
from services.runtime.server import serve
from services.runtime.tls import Identity
from services.runtime.trail import Trail
from services.user.admin import FirstAdmin
from services.user.api_keys.service import ApiKeyService
from services.user.api_keys.store import ApiKeys
from services.user.authentication import Authentication
from services.user.keys import KeyRing
from services.user.passwords.codes import Codes
from services.user.passwords.domain import Limits
from services.user.passwords.hashing import Passwords
from services.user.passwords.service import PasswordService
from services.user.passwords.store import Attempts, PasswordsOfUsers
from services.user.passwords.throttling import Throttle
from services.user.service import SessionService, UserService
from services.user.store import Sessions, SigningKeys, Users


class Settings(ServerSettings, DatabaseSettings, BusSettings):
    """What the user service needs to know."""

    admin_email: str
    admin_password: SecretStr = Field(min_length=12)
    token_issuer: str
    token_audience: str
    signing_key_secret: SecretStr = Field(min_length=16)
    """Encrypts the private keys in the database, and makes the codes of password resets."""
    login_failures_per_account: int = Field(default=Limits().failures_per_account, ge=1, le=100)
    login_failures_per_address: int = Field(default=Limits().failures_per_address, ge=1)

    @property
    def limits(self) -> Limits:
        """How many failed log-ins are free."""
        return Limits(self.login_failures_per_account, self.login_failures_per_address)


async def main(settings: Settings) -> None:
    """Composes the service and serves."""
    identity = Identity.of(settings)
    async with open_database(settings.database_url) as database, open_bus(settings.nats_url, identity) as bus:
        outbox = Outbox("user", database, bus)
        users, sessions, passwords = Users(database, outbox), Sessions(database, outbox), Passwords()
        secret = settings.signing_key_secret.get_secret_value()
        keys, attempts = KeyRing(SigningKeys(database), secret), Attempts(database)
        throttle = Throttle(attempts, settings.limits)
        authentication = Authentication(
            users, sessions, passwords, throttle, keys, settings.token_issuer, settings.token_audience
        )
        of_users = PasswordsOfUsers(database, outbox)
        password_service = PasswordService(users, of_users, passwords, throttle, Codes(secret))
        api_keys = ApiKeys(database, outbox)
        admin = FirstAdmin(users, passwords, settings.admin_email, settings.admin_password.get_secret_value())
        countries = frozenset(country.alpha_2 for country in pycountry.countries)
        user_service = UserService(users, passwords, countries)
        session_service = SessionService(authentication, sessions, keys)
        register = [
            partial(user_pb2_grpc.add_UserServiceServicer_to_server, user_service),
            partial(user_pb2_grpc.add_SessionServiceServicer_to_server, session_service),
            partial(api_key_pb2_grpc.add_ApiKeyServiceServicer_to_server, ApiKeyService(api_keys)),
            partial(password_pb2_grpc.add_PasswordServiceServicer_to_server, password_service),
        ]
        sweeps = [one.sweep().run() for one in (sessions, api_keys, attempts, of_users)]
        background = [outbox.relay(), keys.run(), keys.hear(bus), admin.run(), api_keys.note_uses(), *sweeps]
        ready = [database.ping, keys.ready, admin.ready]
        await serve("user", settings, register, background=background, ready=ready, trail=Trail("user", database))


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
