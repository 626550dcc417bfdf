"""authz and the user service together: what one signs the other believes, over HTTPS with mesh certificates."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import jwt
import pytest
from google.protobuf import json_format
from user.v1 import user_pb2, user_pb2_grpc

from authz.issuers import Issuer
from authz.jwks import LARGEST_SET, BadKeySet, Keys, download
from authz.tokens import InvalidToken, Tokens
from services.runtime.bus import open_bus
from services.runtime.outbox import Outbox
from services.runtime.postgres import Database, open_database
from services.user.admin import FirstAdmin
from services.user.authentication import Authentication
from services.user.domain import ACCESS_TOKEN_LIFETIME, KEY_NOTICE, ROLES
from services.user.keys import KeyRing
from services.user.passwords.domain import Limits
from services.user.passwords.hashing import Passwords
from services.user.passwords.store import Attempts
from services.user.passwords.throttling import Throttle
from services.user.service import SessionService
from services.user.store import Sessions, SigningKeys, Users
from tests.integration.conftest import FreshDatabase
from tests.integration.publisher import Publisher, publishing
from tests.integration.serving import As, identity, serving
from tests.issuer import AUDIENCE, CLAIMS, ISSUER, Heard

SECRET = "a secret of the test alone"
EMAIL, PASSWORD = "admin@example.com", "correct horse battery"


@dataclass
class Both:
    """The user service and what authz has of it."""

    database: Database
    ring: KeyRing
    sessions: "user_pb2_grpc.SessionServiceAsyncStub"
    publisher: Publisher
    keys: Keys
    tokens: Tokens

    async def publish(self) -> None:
        """Has the publisher answer as the edge's `keys` listener does: GetJwks as JSON."""
        await self.ring.refresh()
        key_set = await self.sessions.GetJwks(user_pb2.GetJwksRequest())
        self.publisher.body = json_format.MessageToJson(key_set).encode()

    async def log_in(self) -> user_pb2.Session:
        return await self.sessions.CreateSession(user_pb2.CreateSessionRequest(email=EMAIL, password=PASSWORD))

    async def rotate(self) -> None:
        """Makes it the next key's turn, as if it had been published long enough."""
        await self.database.execute("UPDATE signing_keys SET create_time = create_time - $1::interval", KEY_NOTICE)
        await SigningKeys(self.database).hasten((await self.database.fetch("SELECT now()"))[0][0])
        await self.publish()


@pytest.fixture
async def both(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(fresh_database("user")))
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "user")))
        outbox = Outbox("user", database, bus)
        users, sessions, passwords = Users(database, outbox), Sessions(database, outbox), Passwords()
        ring = KeyRing(SigningKeys(database), SECRET)
        throttle = Throttle(Attempts(database), Limits())
        authentication = Authentication(users, sessions, passwords, throttle, ring, ISSUER, AUDIENCE)
        service = SessionService(authentication, sessions, ring)
        register = [partial(user_pb2_grpc.add_SessionServiceServicer_to_server, service)]
        edge = As(await stack.enter_async_context(serving(register, certificates, "user")), certificates, "user")
        stack.push_async_callback(edge.close)
        await FirstAdmin(users, passwords, EMAIL, PASSWORD).sign_up()

        publisher = stack.enter_context(publishing(certificates, "edge"))
        url = f"https://localhost:{publisher.server_port}/.well-known/jwks.json"
        keys = Keys(partial(download, url, identity(certificates, "authz").context))
        stub: user_pb2_grpc.SessionServiceAsyncStub = user_pb2_grpc.SessionServiceStub(edge.user())
        made = Both(database, ring, stub, publisher, keys, Tokens([Issuer(ISSUER, AUDIENCE, keys)], Heard()))
        await made.publish()
        await keys.refresh()
        yield made


async def test_a_token_of_the_user_service_says_who_logged_in(both: Both) -> None:
    session = await both.log_in()
    user = await both.tokens.verify(session.access_token)
    assert user.id.startswith("usr_")
    assert user.roles == set(ROLES)
    refreshed = await both.sessions.RefreshSession(user_pb2.RefreshSessionRequest(refresh_token=session.refresh_token))
    assert await both.tokens.verify(refreshed.access_token) == user
    with pytest.raises(InvalidToken):
        await both.tokens.verify(session.refresh_token)


async def test_a_rotation_is_not_noticed_and_a_key_never_heard_of_is_fetched(both: Both) -> None:
    before = await both.log_in()
    await both.rotate()
    after = await both.log_in()
    for session in (before, after):
        await both.tokens.verify(session.access_token)
    await both.rotate()
    refreshing = asyncio.create_task(both.keys.run())
    await both.tokens.verify((await both.log_in()).access_token)
    refreshing.cancel()


async def test_no_token_is_refused_in_its_life_while_keys_are_rotated_under_traffic(both: Both) -> None:
    lagging = KeyRing(SigningKeys(both.database), SECRET)
    issued: list[str] = []
    refused: list[Exception] = []

    async def traffic() -> None:
        while True:
            now = datetime.now(UTC)
            for ring in (both.ring, lagging):
                times = {"iat": int(now.timestamp()), "exp": int((now + ACCESS_TOKEN_LIFETIME).timestamp())}
                issued.append(ring.sign({**CLAIMS, **times, "jti": f"t{len(issued)}"}, now))
                try:
                    await both.tokens.verify(issued[-1])
                except InvalidToken as error:
                    refused.append(error)
            await asyncio.sleep(0)

    await lagging.refresh()
    clients = asyncio.create_task(traffic())
    for _ in range(4):
        await both.rotate()
        await both.keys.refresh()  # as within a minute, and a key signs after five
        await lagging.refresh()
    clients.cancel()
    assert not refused
    assert len({jwt.get_unverified_header(one)["kid"] for one in issued}) > 3
    for one in issued:
        await both.tokens.verify(one)


@pytest.mark.parametrize(
    ("status", "body"), [(500, b"{}"), (302, b""), (200, b"x" * (LARGEST_SET + 1)), (200, b"<html>")]
)
async def test_an_answer_that_is_no_key_set_changes_nothing(both: Both, status: int, body: bytes) -> None:
    both.publisher.status, both.publisher.body = status, body
    with pytest.raises(BadKeySet):
        await both.keys.refresh()
    await both.tokens.verify((await both.log_in()).access_token)


async def test_keys_come_only_from_whom_the_ca_certifies(both: Both, certificates: Path) -> None:
    trusting_another = replace(identity(certificates, "authz"), ca=certificates / "edge-ca.pem")
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await download(f"https://localhost:{both.publisher.server_port}/", trusting_another.context)
