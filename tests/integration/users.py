"""The user service behind its interceptors, with real Postgres and NATS, for tests."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from google.protobuf import field_mask_pb2
from google.type import date_pb2
from user.v1 import api_key_pb2_grpc, password_pb2_grpc, user_pb2, user_pb2_grpc

from services.runtime.bus import Bus, open_bus
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from services.runtime.postgres import Database, open_database
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
from tests.integration.serving import As, identity, serving

PASSWORD = "correct horse battery"
_WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
SECRET = "a secret of the test alone"
ISSUER = "https://issuer.example"
EASY = Limits()


@dataclass
class House:
    """The service, and what the tests reach around it for."""

    peers: dict[str, As]
    database: Database
    bus: Bus
    outbox: Outbox
    users: Users
    passwords: Passwords
    api_keys: ApiKeys

    def users_as(self, user_id: str = "", *roles: str) -> "user_pb2_grpc.UserServiceAsyncStub":
        return user_pb2_grpc.UserServiceStub(self.peers["edge"].user(user_id, *roles))

    def asked_by(self, peer: str) -> "user_pb2_grpc.UserServiceAsyncStub":
        """As another service calls it, for nobody."""
        return user_pb2_grpc.UserServiceStub(self.peers[peer].user())

    def sessions_as(self, user_id: str = "", session_id: str = "") -> "user_pb2_grpc.SessionServiceAsyncStub":
        return user_pb2_grpc.SessionServiceStub(self.peers["edge"].user(user_id, x_user_session=session_id))

    def keys_as(
        self, user_id: str = "", *roles: str, session_id: str = ""
    ) -> "api_key_pb2_grpc.ApiKeyServiceAsyncStub":
        return api_key_pb2_grpc.ApiKeyServiceStub(self.peers["edge"].user(user_id, *roles, x_user_session=session_id))

    def passwords_as(self, user_id: str = "", session_id: str = "") -> "password_pb2_grpc.PasswordServiceAsyncStub":
        return password_pb2_grpc.PasswordServiceStub(self.peers["edge"].user(user_id, x_user_session=session_id))

    def asked_by_authz(self) -> "api_key_pb2_grpc.ApiKeyServiceAsyncStub":
        return api_key_pb2_grpc.ApiKeyServiceStub(self.peers["authz"].user())

    async def sign_up(self, **fields: Any) -> user_pb2.User:
        return await self.users_as().CreateUser(person(**fields))

    async def log_in(self, email: str, password: str = PASSWORD) -> user_pb2.Session:
        return await self.sessions_as().CreateSession(user_pb2.CreateSessionRequest(email=email, password=password))

    async def refresh(self, refresh_token: str) -> user_pb2.Session:
        return await self.sessions_as().RefreshSession(user_pb2.RefreshSessionRequest(refresh_token=refresh_token))

    async def update(
        self, who: user_pb2.User, *paths: str, by: tuple[str, ...] = (), user_id: str = "me", **fields: Any
    ) -> user_pb2.User:
        request = user_pb2.UpdateUserRequest(
            user_id=user_id, user=user_pb2.User(**fields), update_mask=field_mask_pb2.FieldMask(paths=paths)
        )
        return await self.users_as(*(by or (who.id, "customer"))).UpdateUser(request)

    async def log_out(self, user: user_pb2.User, session: user_pb2.Session) -> None:
        await self.sessions_as(user.id, claims(session)["sid"]).DeleteSession(user_pb2.DeleteSessionRequest())

    async def suspend(
        self, user: user_pb2.User, state: user_pb2.User.State.ValueType = user_pb2.User.SUSPENDED
    ) -> None:
        """Done by an admin. Another state undoes it."""
        await self.update(user, "state", by=("usr_admin", "admin"), user_id=user.id, state=state)

    async def events(self, user_id: str) -> list[user_pb2.UserEvent]:
        """What was written for others to learn of a user, in order, while the outbox is not relayed."""
        rows = await self.database.fetch(
            "SELECT payload FROM outbox WHERE subject = $1 ORDER BY position", f"user.{user_id}"
        )
        return [user_pb2.UserEvent.FromString(row["payload"]) for row in rows]

    async def ended(self, user: user_pb2.User) -> list[user_pb2.SessionEvent]:
        """What was written for others to learn of the user's sessions, while the outbox is not relayed."""
        events = await self.told_of(user)
        return [one for one in events if one.session_id != user.id and not one.session_id.startswith("key_")]

    async def told_of(self, user: user_pb2.User) -> list[user_pb2.SessionEvent]:
        """The same, also of the user's keys and of themselves."""
        rows = await self.database.fetch("SELECT payload FROM outbox WHERE subject LIKE 'session.%' ORDER BY position")
        events = [user_pb2.SessionEvent.FromString(row["payload"]) for row in rows]
        return [event for event in events if event.user_id == user.id]

    async def trail(self, resource: str) -> list[tuple[str, str]]:
        """Who did what to a resource, in order: the actor and the RPC's name."""
        rows = await self.database.fetch("SELECT actor_id, action FROM audit WHERE resource = $1 ORDER BY id", resource)
        return [(row["actor_id"], row["action"].rpartition("/")[2]) for row in rows]

    async def somebody_waits(self) -> bool:
        """Tells whether a transaction waits for another."""
        return bool(await self.database.fetch(_WAITING))


def person(**fields: Any) -> user_pb2.CreateUserRequest:
    born = date_pb2.Date(year=1990, month=2, day=28)
    given = {"email": f"{new_id('ada')}@example.com", "display_name": "Ada Byron", "country": "GB"}
    return user_pb2.CreateUserRequest(**{"password": PASSWORD, "date_of_birth": born, **given, **fields})


def claims(session: user_pb2.Session) -> dict[str, Any]:
    return jwt.decode(session.access_token, options={"verify_signature": False})


@asynccontextmanager
async def open_house(
    database_url: str, nats_url: str, certificates: Path, limits: Limits = EASY
) -> AsyncIterator[House]:
    """Opens a house. Its outbox is not relayed."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "user")))
        outbox = Outbox("user", database, bus)
        users, sessions, passwords = Users(database, outbox), Sessions(database, outbox), Passwords()
        keys = KeyRing(SigningKeys(database), SECRET)
        await keys.refresh()
        throttle = Throttle(Attempts(database), limits)
        authentication = Authentication(users, sessions, passwords, throttle, keys, ISSUER, "drawbridge")
        of_users = PasswordsOfUsers(database, outbox)
        password_service = PasswordService(users, of_users, passwords, throttle, Codes(SECRET))
        api_keys = ApiKeys(database, outbox)
        user_service = UserService(users, passwords, frozenset({"GB", "DE"}))
        session_service = SessionService(authentication, sessions, keys)
        register = [
            partial(user_pb2_grpc.add_UserServiceServicer_to_server, user_service),
            partial(user_pb2_grpc.add_SessionServiceServicer_to_server, session_service),
            partial(api_key_pb2_grpc.add_ApiKeyServiceServicer_to_server, ApiKeyService(api_keys)),
            partial(password_pb2_grpc.add_PasswordServiceServicer_to_server, password_service),
        ]
        port = await stack.enter_async_context(serving(register, certificates, "user"))
        names = ("edge", "authz", "payment", "notification", "document")
        peers = {name: As(port, certificates, "user", name) for name in names}
        for peer in peers.values():
            stack.push_async_callback(peer.close)
        yield House(peers, database, bus, outbox, users, passwords, api_keys)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value
