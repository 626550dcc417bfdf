"""Events on their way to a real receiver, which verifies, fails, hangs, redirects or babbles."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from google.type.money_pb2 import Money
from notification.v1.webhook_pb2 import GetWebhookRequest, Webhook, WebhookDelivery
from payment.v1.payment_pb2 import Payment
from standardwebhooks import Webhook as Verifier

from tests.integration.conftest import FreshDatabase
from tests.integration.posting import House, became, pair, posting
from tests.integration.receiver import Receiver, hanging, receiving

EVENTS = 200


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with posting(fresh_database("notification"), nats_url, certificates) as house:
        yield house


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def delivered(delivery: WebhookDelivery) -> bool:
    return delivery.state == WebhookDelivery.DELIVERED


def failing(delivery: WebhookDelivery) -> bool:
    return delivery.attempts >= 1 and bool(delivery.error)


async def test_every_event_is_posted_once_to_payer_and_payee_and_verifies(house: House, receiver: Receiver) -> None:
    payer, payee = pair()
    hooks = {
        "/payer": await house.webhook(payer, f"{receiver.url}/payer"),
        "/payee": await house.webhook(payee, f"{receiver.url}/payee"),
    }
    for _ in range(EVENTS // 2):
        authorized = became(payer, payee, Payment.AUTHORIZED)
        await house.tell(authorized)
        await house.tell(became(payer, payee, Payment.SETTLED, authorized.payment_id, sequence=2))
        await house.tell(authorized)  # NATS may repeat it
    for owner, hook in ((payer, hooks["/payer"]), (payee, hooks["/payee"])):
        log = await house.logged(owner, hook.id, delivered, EVENTS)
        assert {one.attempts for one in log} == {1}

    events: Counter[tuple[str, str, int]] = Counter()
    for post in receiver.posts:
        content = Verifier(hooks[post.path].secret).verify(post.body, post.headers)
        events[post.path, content["data"]["paymentId"], content["data"]["sequence"]] += 1
        assert post.headers["content-type"] == "application/json"
    assert len(events) == 2 * EVENTS and set(events.values()) == {1}
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 2 * EVENTS
    assert len(receiver.connections) < EVENTS / 4  # they are used again


async def test_the_body_is_the_event_as_rest_clients_know_it(house: House, receiver: Receiver) -> None:
    payer, payee = pair()
    hook = await house.webhook(payer, receiver.url)
    event = became(payer, payee)
    await house.tell(event)
    await house.logged(payer, hook.id, delivered)
    [post] = receiver.posts
    assert json.loads(post.body) == {
        "type": "payment.settled",
        "timestamp": "2026-11-21T12:01:00Z",
        "data": {
            "paymentId": event.payment_id,
            "sequence": 1,
            "state": "SETTLED",
            "stateReason": "",
            "payerId": payer,
            "payeeId": payee,
            "amount": {"currencyCode": "EUR", "units": "42", "nanos": 500000000},
            "createTime": "2026-11-21T12:01:00Z",
            "invoiceId": "",
        },
    }
    assert b" " not in post.body


async def test_only_the_payer_hears_why_a_payment_was_declined(house: House, receiver: Receiver) -> None:
    payer, payee = pair()
    hooks = {user: await house.webhook(user, f"{receiver.url}/{user}") for user in (payer, payee)}
    declined = became(payer, payee, Payment.DECLINED)
    declined.state_reason = "INSUFFICIENT_FUNDS"
    failed = became(payer, payee, Payment.FAILED)
    failed.state_reason = "BALANCE_LIMIT_EXCEEDED"
    for event in (declined, failed):
        await house.tell(event)
    for user, hook in hooks.items():
        await house.logged(user, hook.id, delivered, 2)
    told = {(post.path[1:], json.loads(post.body)["data"]["stateReason"]) for post in receiver.posts}
    assert told == {(payer, "INSUFFICIENT_FUNDS"), (payee, "")} | {(one, failed.state_reason) for one in hooks}


async def test_a_webhook_gets_the_events_it_asked_for_and_refunds_by_their_name(
    house: House, receiver: Receiver
) -> None:
    payer, payee = pair()
    some = await house.webhook(payer, f"{receiver.url}/some", "payment.refunded", "payment.failed")
    every = await house.webhook(payer, f"{receiver.url}/all")
    settled = became(payer, payee)
    in_part = became(payer, payee, Payment.SETTLED, settled.payment_id, 2)
    in_part.refunded_amount.CopyFrom(Money(currency_code="EUR", units=2))
    wholly = became(payer, payee, Payment.REFUNDED, settled.payment_id, 3)
    wholly.refunded_amount.CopyFrom(wholly.amount)
    for event in (settled, in_part, wholly):
        await house.tell(event)
    await house.logged(payer, every.id, delivered, 3)
    await house.logged(payer, some.id, delivered, 2)
    got = sorted((json.loads(post.body)["data"]["sequence"], post.path) for post in receiver.posts)
    assert got == [(1, "/all"), (2, "/all"), (2, "/some"), (3, "/all"), (3, "/some")]
    types = {json.loads(post.body)["type"] for post in receiver.posts if post.path == "/some"}
    assert types == {"payment.refunded"}


async def test_what_failed_is_posted_again_with_the_same_id_and_body_and_a_new_timestamp(
    house: House, receiver: Receiver
) -> None:
    receiver.answer_with(500, 503, 200)
    payer, payee = pair()
    hook = await house.webhook(payer, receiver.url)
    await house.tell(became(payer, payee))
    [waiting] = await house.logged(payer, hook.id, failing)
    assert waiting.state == WebhookDelivery.PENDING
    assert (waiting.response_status, waiting.error) == (500, "the answer was 500")
    assert waiting.next_attempt_time.ToDatetime() > waiting.last_attempt_time.ToDatetime()
    [done] = await house.logged(payer, hook.id, delivered)
    assert (done.attempts, done.response_status, done.error) == (3, 200, "")
    assert {(post.headers["webhook-id"], post.body) for post in receiver.posts} == {(done.id, receiver.posts[0].body)}
    first, *_, last = (int(post.headers["webhook-timestamp"]) for post in receiver.posts)
    assert last > first
    for post in receiver.posts:
        Verifier(hook.secret).verify(post.body, post.headers)


async def test_a_receiver_that_is_away_gets_everything_when_it_is_back(house: House) -> None:
    payer, payee = pair()
    async with receiving() as gone:
        url = gone.url
    hook = await house.webhook(payer, url)
    await house.tell(became(payer, payee))
    [waiting] = await house.logged(payer, hook.id, failing)
    assert (waiting.response_status, waiting.error) == (0, "no connection: Connection refused")
    async with receiving(port=gone.port) as back:
        await house.logged(payer, hook.id, delivered)
        assert len(back.posts) == 1


async def test_a_receiver_that_says_when_to_come_again_is_left_alone_until_then(
    house: House, receiver: Receiver
) -> None:
    receiver.answer_with(429, **{"retry-after": "600"})
    payer, payee = pair()
    hook = await house.webhook(payer, receiver.url)
    await house.tell(became(payer, payee))
    [waiting] = await house.logged(payer, hook.id, failing)
    wait = waiting.next_attempt_time.ToDatetime() - waiting.last_attempt_time.ToDatetime()
    assert 590 < wait.total_seconds() < 630


async def test_a_receiver_that_hangs_holds_up_no_other(house: House, receiver: Receiver) -> None:
    release = asyncio.Event()
    payer, payee = pair()
    async with receiving() as slow:
        slow.answer = hanging(release)
        await house.webhook(payer, slow.url)
        hook = await house.webhook(payee, receiver.url)
        for _ in range(50):
            await house.tell(became(payer, payee))
        await house.logged(payee, hook.id, delivered, 50)
        assert 0 < len(slow.posts) <= 8  # of each of the two workers four
        release.set()


async def test_410_gone_disables_a_webhook(house: House, receiver: Receiver) -> None:
    receiver.answer_with(410)
    payer, payee = pair()
    hook = await house.webhook(payer, receiver.url)
    await house.tell(became(payer, payee))
    [given_up] = await house.logged(payer, hook.id, lambda one: one.state == WebhookDelivery.FAILED)
    assert (given_up.attempts, given_up.response_status) == (1, 410)
    disabled = await house.of(payer).GetWebhook(GetWebhookRequest(webhook_id=hook.id))
    assert (disabled.state, disabled.etag) == (Webhook.DISABLED, "2")


async def test_redirects_are_not_followed(house: House, receiver: Receiver) -> None:
    async with receiving() as elsewhere:
        receiver.answer_with(307, location=f"{elsewhere.url}/internal")
        payer, payee = pair()
        hook = await house.webhook(payer, receiver.url)
        await house.tell(became(payer, payee))
        [waiting] = await house.logged(payer, hook.id, failing)
        assert (waiting.state, waiting.response_status) == (WebhookDelivery.PENDING, 307)
        assert waiting.error == "the answer was 307: redirects are not followed"
        assert not elsewhere.posts


async def test_an_answer_without_end_is_not_waited_for(house: House, receiver: Receiver) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"and " * 4096)

    receiver.answer = endless
    payer, payee = pair()
    hook = await house.webhook(payer, receiver.url)
    await house.tell(became(payer, payee))
    [done] = await house.logged(payer, hook.id, delivered)
    assert (done.attempts, done.response_status) == (1, 200)


async def test_what_answers_in_no_http_is_tried_again(house: House) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1") as server:
        payer, payee = pair()
        hook = await house.webhook(payer, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await house.tell(became(payer, payee))
        [waiting] = await house.logged(payer, hook.id, failing)
        assert (waiting.response_status, waiting.error) == (0, "the answer was not HTTP")


async def test_a_server_that_only_ever_says_that_an_answer_will_come_is_left_at_once(house: House) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    said = 0

    async def dawdle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        await reader.readline()
        with suppress(ConnectionError):
            while said < 2**30:
                writer.write(hint * 1000)
                said += 1000 * len(hint)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(dawdle, "127.0.0.1") as server:
        payer, payee = pair()
        hook = await house.webhook(payer, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await house.tell(became(payer, payee))
        [waiting] = await house.logged(payer, hook.id, failing)
        assert (waiting.response_status, waiting.error) == (0, "the answer was too long")
        assert said < 10 * 2**20


async def test_a_long_answer_counts_by_its_status(house: House, receiver: Receiver) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(body=b"<p>" * 2**20)

    receiver.answer = page
    payer, payee = pair()
    hook = await house.webhook(payer, receiver.url)
    for count in (1, 2):
        await house.tell(became(payer, payee))
        done = await house.logged(payer, hook.id, delivered, count)
        assert {(one.attempts, one.response_status) for one in done} == {(1, 200)}
