"""E-mail to a real SMTP server, SMS and push messages to a real HTTP server, by a worker on a real Postgres."""

import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from scripts.stack import ports
from services.notification.delivery.channels import ChannelSettings, open_channels
from services.notification.delivery.domain import RESET_REQUESTED, Delivery, Message, PasswordReset
from services.notification.delivery.email import Email, write
from services.notification.delivery.smtp import Connections, server
from services.notification.delivery.store import Deliveries
from services.notification.delivery.worker import Channel
from services.notification.domain import Preferences
from services.runtime.ids import new_id
from tests.integration.conftest import FreshDatabase
from tests.integration.delivering import House, delivering
from tests.integration.mailbox import Mailbox, mailbox
from tests.integration.receiver import Receiver, receiving

SENDER = "Drawbridge <no-reply@drawbridge.example>"


class Contacts:
    """Everybody but usr_none has an address; `away` is what is raised instead."""

    def __init__(self, domain: str = "example.com") -> None:
        self.domain = domain
        self.away: Exception | None = None
        self.resets: dict[str, PasswordReset] = {}

    async def password_reset(self, reset_id: str) -> PasswordReset | None:
        if self.away:
            raise self.away
        return self.resets.get(reset_id)

    async def email(self, user_id: str) -> str | None:
        if self.away:
            raise self.away
        return None if user_id == "usr_none" else f"{user_id}@{self.domain}"


class Addresses:
    """Everybody has a telephone and a device, usr_none has not."""

    async def get(self, user_id: str) -> Preferences:
        some = Preferences(sms=True, push=True, phone_number="+4915112345678", push_token="device")
        return Preferences() if user_id == "usr_none" else some


@pytest.fixture(scope="module")
def url(fresh_database: FreshDatabase) -> str:
    return fresh_database("notification")


@pytest.fixture
async def house(url: str) -> AsyncIterator[House]:
    async with delivering(url) as house:
        yield house


def to(box: Mailbox, contacts: Contacts | None = None, ca: Path | None = None, login: str = "") -> Email:
    """The channel that sends to a mailbox."""
    tls = ssl.create_default_context(cafile=ca)
    return Email(Connections(server(f"smtp://{login}localhost:{box.port}"), tls), SENDER, contacts or Contacts())


@asynccontextmanager
async def providing(receiver: Receiver) -> AsyncIterator[dict[str, Channel]]:
    """The channels that send to an HTTP provider, as the environment switches them on."""
    settings = ChannelSettings(
        sms_url=f"{receiver.url}/sms",
        sms_secret=SecretStr("s3cret"),
        push_url=f"{receiver.url}/push",
        push_secret=SecretStr("pu5h"),
    )
    async with open_channels(settings, Contacts(), Addresses()) as channels:
        yield channels


async def test_every_delivery_arrives_once(house: House) -> None:
    async with mailbox() as box:
        ids = [one for _ in range(150) for one in await house.add("EMAIL")]
        for _ in range(2):
            await house.start({"EMAIL": to(box)})
        for delivery_id in ids:
            assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
        assert Counter(box.ids) == Counter(ids)


async def test_an_email_says_whom_it_is_from_and_for_and_what_happened(house: House) -> None:
    async with mailbox() as box:
        user = new_id("usr")
        [delivery_id] = await house.add("EMAIL", user=user, body="You paid 42.50 EUR to Zoë.")
        await house.start({"EMAIL": to(box)})
        await house.ended(delivery_id)
    [mail] = box.mails
    assert mail.recipient == f"{user}@example.com"
    assert mail.message["To"] == mail.recipient
    assert mail.message["From"] == SENDER
    assert mail.message["Subject"] == "Payment settled"
    assert mail.message["Message-ID"] == f"<{delivery_id}@drawbridge.example>"
    assert datetime.now(mail.message["Date"].datetime.tzinfo) - mail.message["Date"].datetime < timedelta(minutes=1)
    text = mail.message.get_content()
    assert "You paid 42.50 EUR to Zoë." in text


async def test_an_email_about_a_document_names_no_payment() -> None:
    delivery = Delivery(
        id="dlv_1",
        user_id="usr_1",
        channel="EMAIL",
        event_id="document.doc_1.2",
        event_type="document.verified",
        payment_id="",
        body="Your passport was accepted.",
        attempts=1,
        create_time=datetime.now(UTC),
    )
    message = write(delivery, "ada@example.com", SENDER, datetime.now(UTC))
    assert message["Subject"] == "Document verified"
    assert message.get_content() == "Hello,\n\nYour passport was accepted.\n"


async def test_an_email_waits_for_a_server_that_is_away(house: House) -> None:
    [port] = ports.free(1)
    [delivery_id] = await house.add("EMAIL")
    await house.start({"EMAIL": to(Mailbox(port))})
    away = await house.tried(delivery_id)
    assert (away["state"], away["next_attempt_time"] - away["last_attempt_time"] < timedelta(seconds=2)) == (
        "PENDING",
        True,
    )
    async with mailbox(port) as box:
        state, attempts, error = await house.ended(delivery_id)
        assert (state, error, box.ids) == ("DELIVERED", "", [delivery_id])
        assert attempts > 1


@pytest.mark.parametrize("command", ["RCPT", "DATA", "MESSAGE"])
async def test_an_email_that_the_server_never_takes_is_given_up(house: House, command: str) -> None:
    async with mailbox() as box:
        user = new_id("usr")
        box.answers[command] = [f"550 5.1.1 <{user}@example.com> is unknown"]
        [delivery_id] = await house.add("EMAIL", user=user)
        await house.start({"EMAIL": to(box)})
        assert await house.ended(delivery_id) == ("FAILED", 1, "the server answered 550 5.1.1")
        assert not box.mails


@pytest.mark.parametrize(
    ("command", "answer"),
    [("RCPT", "451 4.7.1 later"), ("MESSAGE", "452 full"), ("MAIL", "530 5.7.0 log in"), ("EHLO", "421 busy")],
)
async def test_an_email_that_the_server_does_not_take_now_is_sent_again(
    house: House, command: str, answer: str
) -> None:
    async with mailbox() as box:
        box.answers[command] = [answer]
        [delivery_id] = await house.add("EMAIL")
        await house.start({"EMAIL": to(box)})
        assert (await house.tried(delivery_id))["error"]
        state, attempts, _ = await house.ended(delivery_id)
        assert (state, box.ids) == ("DELIVERED", [delivery_id])
        assert attempts > 1


async def test_an_email_is_encrypted_when_the_server_can(house: House, certificates: Path) -> None:
    offered = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    offered.load_cert_chain(certificates / "public.pem", certificates / "public.key")
    async with mailbox(tls=offered) as box:
        [delivery_id] = await house.add("EMAIL")
        await house.start({"EMAIL": to(box, ca=certificates / "edge-ca.pem", login="us%40er:p%3Ass@")})
        assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
        [mail] = box.mails
        assert (mail.encrypted, mail.login) == (True, "us@er:p:ss")


async def test_nobody_logs_in_without_encryption_and_nothing_goes_to_a_stranger(
    house: House, certificates: Path
) -> None:
    offered = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    offered.load_cert_chain(certificates / "public.pem", certificates / "public.key")
    async with mailbox() as plain, mailbox(tls=offered) as stranger:
        [mail, sms] = await house.add("EMAIL", "SMS")
        await house.start({"EMAIL": to(plain, login="user:password@"), "SMS": to(stranger)})
        await house.tried(mail)
        await house.tried(sms)
        assert not {"AUTH", "MAIL"}.intersection(plain.commands + stranger.commands)


@pytest.mark.parametrize(
    "user",
    [
        "ada\r\nBcc: everybody",
        "=?utf-8?q?ada=0D=0ABcc=3A_everybody?=",
        "ada=?utf-8?q?=0D=0ABcc=3A_everybody?=",
        '"=?utf-8?q?ada=0D=0ABcc=3A_everybody?= "',
        "=?utf-8?q?everybody=40example=2Ecom=2C?= =?utf-8?q?_ada?=",
        "everybody@example.com, ada",
        "ada <everybody@example.com>,ada",
        ".ada",
    ],
)
async def test_an_address_cannot_add_a_header_or_another_address(house: House, user: str) -> None:
    async with mailbox() as box:
        [delivery_id] = await house.add("EMAIL", user=user)
        await house.start({"EMAIL": to(box)})
        assert await house.ended(delivery_id) == ("FAILED", 1, "the address cannot be written into an e-mail")
        assert not box.mails


async def test_long_and_odd_addresses_are_written_as_they_are(house: House) -> None:
    async with mailbox() as box:
        users = ["o'brien+tag{1}=2", "a" * 64]
        await house.start({"EMAIL": to(box, Contacts(f"{'b' * 63}.{'c' * 63}.example"))})
        for user in users:
            [delivery_id] = await house.add("EMAIL", user=user)
            assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
        assert [mail.message["To"].addresses[0].username for mail in box.mails] == users
        assert [mail.message["To"] for mail in box.mails] == [mail.recipient for mail in box.mails]


async def test_nothing_is_sent_to_a_user_who_is_gone_and_it_is_awaited_who_cannot_be_asked_for(house: House) -> None:
    async with mailbox() as box:
        contacts = Contacts()
        await house.start({"EMAIL": to(box, contacts)})
        [gone] = await house.add("EMAIL", user="usr_none")
        assert (await house.ended(gone))[:2] == ("FAILED", 1)
        contacts.away = ConnectionError("user at 10.0.0.7 is away")
        [delivery_id] = await house.add("EMAIL")
        assert (await house.tried(delivery_id))["error"] == "ConnectionError"
        contacts.away = None
        assert (await house.ended(delivery_id))[0] == "DELIVERED"


async def asked_for(house: House, reset_id: str) -> str:
    """Writes the delivery of a reset that was asked for. Returns its id."""
    message = Message(
        user_id="usr_1",
        channel="EMAIL",
        event_id=f"password.{reset_id}",
        event_type=RESET_REQUESTED,
        payment_id="",
        body="",
    )
    async with house.database.transaction() as connection:
        await Deliveries(house.database).add(connection, [message])
    [row] = await house.database.fetch("SELECT id FROM deliveries WHERE event_id = $1", message.event_id)
    return str(row["id"])


async def test_the_code_of_a_reset_is_asked_for_when_it_is_mailed_and_kept_nowhere(house: House) -> None:
    contacts, reset_id = Contacts(), new_id("pwd")
    contacts.away = ConnectionError("user at 10.0.0.7 is away")
    contacts.resets[reset_id] = PasswordReset("ada@example.com", "ABCDE-12345", datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    async with mailbox() as box:
        await house.start({"EMAIL": to(box, contacts)})
        delivery_id = await asked_for(house, reset_id)
        assert (await house.tried(delivery_id))["error"] == "ConnectionError"
        contacts.away = None
        assert (await house.ended(delivery_id))[0] == "DELIVERED"
    [mail] = box.mails
    assert (mail.recipient, mail.message["Subject"]) == ("ada@example.com", "Password reset requested")
    text = " ".join(mail.message.get_content().split())
    assert "The code to set it is ABCDE-12345. It works once, until 03:04 UTC." in text
    assert not [value for value in await house.row(delivery_id) if "ABCDE" in str(value) or "ada" in str(value)]


async def test_a_reset_that_is_over_is_not_mailed(house: House) -> None:
    async with mailbox() as box:
        await house.start({"EMAIL": to(box)})
        delivery_id = await asked_for(house, new_id("pwd"))
        ended = await house.ended(delivery_id)
        assert ended == ("FAILED", 1, "the reset was used or replaced, or has expired")
        assert not box.mails


async def test_sms_and_push_messages_go_to_their_provider(house: House) -> None:
    async with receiving() as receiver, providing(receiver) as channels:
        await house.start(channels)
        ids = await house.add("SMS", "PUSH")
        for delivery_id in ids:
            assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
            assert (await house.row(delivery_id))["response_status"] == 204
    by_path = {post.path: post for post in receiver.posts}
    for path, secret, address in (("/sms", "s3cret", "+4915112345678"), ("/push", "pu5h", "device")):
        post = by_path[path]
        assert post.headers["authorization"] == f"Bearer {secret}"
        assert post.headers["content-type"] == "application/json"
        body = json.loads(post.body)
        assert post.headers["idempotency-key"] == body["id"]
        assert body == {"id": body["id"], "to": address, "text": "You paid 42.50 EUR."}
    assert {post.headers["idempotency-key"] for post in receiver.posts} == set(ids)


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        (400, "FAILED"),
        (422, "FAILED"),
        (401, "DELIVERED"),
        (403, "DELIVERED"),
        (404, "DELIVERED"),
        (429, "DELIVERED"),
        (503, "DELIVERED"),
        (301, "DELIVERED"),
    ],
)
async def test_what_the_provider_refuses_is_given_up_and_what_it_cannot_do_is_sent_again(
    house: House, status: int, ends: str
) -> None:
    async with receiving() as receiver, providing(receiver) as channels:
        receiver.answer_with(status, 200, Location="/elsewhere")
        await house.start(channels)
        [delivery_id] = await house.add("SMS")
        state, attempts, error = await house.ended(delivery_id)
        assert (state, attempts, len(receiver.posts)) == (ends, 1 + (ends == "DELIVERED"), attempts)
        assert error == ("" if ends == "DELIVERED" else f"the provider answered {status}")
        assert {(post.path, post.headers["idempotency-key"]) for post in receiver.posts} == {("/sms", delivery_id)}


async def test_a_provider_is_not_asked_again_before_it_said(house: House) -> None:
    async with receiving() as receiver, providing(receiver) as channels:
        receiver.answer_with(429, **{"Retry-After": "120"})
        await house.start(channels)
        [delivery_id] = await house.add("SMS")
        row = await house.tried(delivery_id)
        assert row["response_status"] == 429
        assert timedelta(seconds=119) < row["next_attempt_time"] - row["last_attempt_time"] < timedelta(seconds=125)


async def test_no_sms_goes_to_a_user_without_a_number(house: House) -> None:
    async with receiving() as receiver, providing(receiver) as channels:
        await house.start(channels)
        [delivery_id] = await house.add("SMS", user="usr_none")
        assert (await house.ended(delivery_id))[0] == "FAILED"
        assert not receiver.posts
