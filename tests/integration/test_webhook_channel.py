"""To whom events are posted, and to whom never: private hosts, proxies, servers with a bad certificate."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from services.notification.delivery import worker as sending
from services.notification.delivery.domain import Delivery, Refused, TryAgain
from services.notification.webhooks import signature
from services.notification.webhooks.channel import WebhookChannel
from services.notification.webhooks.domain import State
from services.notification.webhooks.domain import Webhook as Row
from services.notification.webhooks.network import Resolver, answer, open_session
from services.notification.webhooks.store import Webhooks
from services.runtime.ids import new_id
from services.runtime.postgres import open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.receiver import Receiver, hanging, receiving
from tests.waiting import eventually

PUBLIC = "93.184.215.14"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


class Names(AbstractResolver):
    """A resolver: every name has the one address that it is told, at the one port that it is told."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not self.address:
            raise OSError("no such host")
        return [answer(host, self._port, self.address, socket.AF_INET6 if ":" in self.address else socket.AF_INET)]

    async def close(self) -> None:
        pass


@pytest.fixture
async def webhooks(fresh_database: FreshDatabase) -> AsyncIterator[Webhooks]:
    async with open_database(fresh_database("notification")) as database:
        yield Webhooks(database)


async def delivery_to(webhooks: Webhooks, url: str) -> Delivery:
    """A delivery to a new webhook, whose address nobody judged."""
    now = datetime.now(UTC)
    webhook = Row(new_id("whk"), new_id("usr"), url, (), "", State.ENABLED, 1, now, now)
    await webhooks.add(webhook, signature.new_secret())
    return Delivery(
        id=new_id("dlv"),
        attempts=1,
        create_time=now,
        user_id=webhook.user_id,
        channel="WEBHOOK",
        webhook_id=webhook.id,
        event_id="payment.pay_1.1",
        event_type="payment.settled",
        payment_id="pay_1",
        body="{}",
    )


def tls_of(certificates: Path, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return context


async def test_a_name_that_leads_to_a_private_address_when_it_is_connected_to_reaches_nobody(
    webhooks: Webhooks,
) -> None:
    connections = []

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer.get_extra_info("peername"))
        writer.close()

    async with await asyncio.start_server(count, "127.0.0.1") as server:
        names = Names("127.0.0.1", server.sockets[0].getsockname()[1])
        delivery = await delivery_to(webhooks, "https://rebinding.example/")
        async with open_session(public=True, resolver=names) as session:
            channel = WebhookChannel(webhooks, session, public=True)
            for names.address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
                cast(aiohttp.TCPConnector, session.connector).clear_dns_cache()
                with pytest.raises(TryAgain, match="the host name has no public address"):
                    await channel.send(delivery)
            names.address = ""
            cast(aiohttp.TCPConnector, session.connector).clear_dns_cache()
            with pytest.raises(TryAgain, match="the host name has no public address"):
                await channel.send(delivery)
        assert not connections
        names.address = "127.0.0.1"
        async with open_session(public=False, resolver=names) as session:
            with pytest.raises(TryAgain):
                await WebhookChannel(webhooks, session, public=False).send(delivery)
        assert len(connections) == 1


async def test_names_whose_servers_do_not_answer_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def ask(host: str, *_: object, **__: object) -> list[object]:
        if host.startswith("silent"):
            answered.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 443))]

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    resolver = Resolver(public=True)
    silent = [asyncio.create_task(resolver.resolve(f"silent{number}.example")) for number in range(sending.AT_ONCE)]
    try:
        await asyncio.wait(silent, timeout=0)
        async with asyncio.timeout(5):
            [found] = await resolver.resolve("honest.example", 443)
        assert (found["host"], found["hostname"]) == (PUBLIC, "honest.example")
    finally:
        answered.set()
        await asyncio.gather(*silent)
        await resolver.close()


async def test_a_public_name_is_not_looked_for_in_the_domains_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    for public in (True, False):
        resolver = Resolver(public=public)
        await resolver.resolve("kubernetes.default", 443)
        await resolver.close()
    assert asked == ["kubernetes.default.", "kubernetes.default"]


async def test_an_address_that_was_let_pass_on_a_developers_machine_is_refused_elsewhere(
    webhooks: Webhooks, receiver: Receiver
) -> None:
    delivery = await delivery_to(webhooks, receiver.url)
    async with open_session(public=True) as session:
        with pytest.raises(Refused, match="must begin with https://"):
            await WebhookChannel(webhooks, session, public=True).send(delivery)
        with pytest.raises(Refused, match="the webhook is disabled"):  # deleted, that is
            await WebhookChannel(webhooks, session, public=True).send(replace(delivery, webhook_id="whk_0"))
    assert not receiver.posts


async def test_events_are_posted_to_servers_whose_certificate_is_good_and_to_no_others(
    webhooks: Webhooks, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "edge-ca.pem"))
    async with (
        receiving(tls_of(certificates, "public")) as good,
        receiving(tls_of(certificates, "authz")) as bad,
        open_session(public=False) as session,
    ):
        channel = WebhookChannel(webhooks, session, public=False)
        assert await channel.send(await delivery_to(webhooks, good.url)) == 204
        with pytest.raises(TryAgain, match="the certificate is not valid: unable to get local issuer certificate"):
            await channel.send(await delivery_to(webhooks, bad.url))
        async with open_session(public=False, resolver=Names("127.0.0.1", good.port)) as misled:
            delivery = await delivery_to(webhooks, "https://hooks.example/")
            with pytest.raises(TryAgain, match="the certificate is not valid: Hostname mismatch"):
                await WebhookChannel(webhooks, misled, public=False).send(delivery)
        assert len(good.posts) == 1 and not bad.posts


async def test_no_proxy_is_asked_whatever_the_environment_says(
    webhooks: Webhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with open_session(public=False) as session:
            channel = WebhookChannel(webhooks, session, public=False)
            assert await channel.send(await delivery_to(webhooks, receiver.url)) == 204
    assert len(receiver.posts) == 1 and not proxy.posts


async def test_a_delivery_that_is_broken_off_leaves_nothing_open(webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.answer = hanging(asyncio.Event())
    delivery = await delivery_to(webhooks, receiver.url)

    async def arrived() -> bool:
        return len(receiver.posts) == 1

    async with open_session(public=False) as session:
        sending = asyncio.create_task(WebhookChannel(webhooks, session, public=False).send(delivery))
        await eventually(arrived)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        [transport] = receiver.connections

        async def closed() -> bool:
            return bool(transport.is_closing())

        await eventually(closed)
        receiver.answer = None
        assert await WebhookChannel(webhooks, session, public=False).send(delivery) == 204
