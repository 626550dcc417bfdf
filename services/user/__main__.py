"""Starts the user service."""

from functools import partial

import pycountry
import uvloop
from pydantic import Field, SecretStr
from user.v1 import api_key_pb2_grpc, user_pb2_grpc

from services.runtime import config
from services.runtime.bus import open_bus
from services.runtime.config import BusSettings, DatabaseSettings, ServerSettings
from services.runtime.outbox import Outbox
from services.runtime.postgres import open_database
from services.runtime.server import serve
from services.runtime.tls import Identity
from services.user.admin import FirstAdmin
from services.user.api_keys.service import ApiKeyService
from services.user.api_keys.store import ApiKeys
from services.user.authentication import Authentication
from services.user.keys import KeyRing
from services.user.passwords import Passwords
from services.user.service import SessionService, UserService
from services.user.store import Sessions, SigningKeys, Users


class Settings(ServerSettings, DatabaseSettings, BusSettings):
    """What the user service needs to know."""

    admin_email: str
    admin_password: SecretStr = Field(min_length=12)
    token_issuer: str
    token_audience: str
    signing_key_secret: SecretStr = Field(min_length=16)
    """Encrypts the private keys in the database."""


async def main(settings: Settings) -> None:
    """Composes the service and serves."""
    identity = Identity.of(settings)
    async with open_database(settings.database_url) as database, open_bus(settings.nats_url, identity) as bus:
        outbox = Outbox("user", database, bus)
        users, sessions, passwords = Users(database, outbox), Sessions(database, outbox), Passwords()
        keys = KeyRing(SigningKeys(database), settings.signing_key_secret.get_secret_value())
        authentication = Authentication(
            users, sessions, passwords, keys, settings.token_issuer, settings.token_audience
        )
        api_keys = ApiKeys(database, outbox)
        admin = FirstAdmin(users, passwords, settings.admin_email, settings.admin_password.get_secret_value())
        countries = frozenset(country.alpha_2 for country in pycountry.countries)
        user_service = UserService(users, passwords, countries)
        session_service = SessionService(authentication, sessions, keys)
        register = [
            partial(user_pb2_grpc.add_UserServiceServicer_to_server, user_service),
            partial(user_pb2_grpc.add_SessionServiceServicer_to_server, session_service),
            partial(api_key_pb2_grpc.add_ApiKeyServiceServicer_to_server, ApiKeyService(api_keys)),
        ]
        sweeps = [sessions.sweep().run(), api_keys.sweep().run()]
        background = [outbox.relay(), keys.run(), admin.run(), api_keys.note_uses(), *sweeps]
        ready = [database.ping, keys.ready, admin.ready]
        await serve("user", settings, register, background=background, ready=ready)


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
