"""Webhooks as their owners see them: making, changing, rotating, the log and replay."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from notification.v1.webhook_pb2 import (
    CreateWebhookRequest,
    DeleteWebhookRequest,
    GetWebhookRequest,
    ListWebhookDeliveriesRequest,
    ListWebhooksRequest,
    ReplayWebhookDeliveryRequest,
    RotateWebhookSecretRequest,
    UpdateWebhookRequest,
    Webhook,
    WebhookDelivery,
)
from payment.v1.payment_pb2 import Payment
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from services.notification.delivery.domain import WEBHOOK, Message
from services.notification.delivery.store import Deliveries
from services.notification.webhooks.domain import MOST_SECRETS, WEBHOOKS_PER_USER
from services.notification.webhooks.store import Webhooks
from services.runtime.ids import new_id
from tests.integration.conftest import FreshDatabase
from tests.integration.posting import House, became, pair, posting
from tests.integration.receiver import Post, Receiver, receiving
from tests.integration.serving import detail, reason
from tests.waiting import eventually

URL = "https://example.com/hook"


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with posting(fresh_database("notification"), nats_url, certificates) as house:
        yield house


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def refusal(call: Awaitable[Any]) -> str:
    """The reason for which a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason(refused.value)


async def posted(receiver: Receiver, count: int) -> list[Post]:
    """Waits until so many requests came."""

    async def enough() -> bool:
        return len(receiver.posts) >= count

    await eventually(enough)
    return receiver.posts


def delivered(delivery: WebhookDelivery) -> bool:
    return delivery.state == WebhookDelivery.DELIVERED


def verifies(secret: str, post: Post) -> bool:
    try:
        Verifier(secret).verify(post.body, dict(post.headers))
    except WebhookVerificationError:
        return False
    return True


async def test_only_the_answer_that_makes_a_webhook_tells_its_secret(house: House) -> None:
    owner = new_id("usr")
    request = CreateWebhookRequest(url=URL, event_types=["payment.settled"], description="books")
    made = await house.of(owner).CreateWebhook(request)
    assert made.id.startswith("whk_") and made.state == Webhook.ENABLED and made.etag == "1"
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"), validate=True)) == 32
    kept = await house.of(owner).GetWebhook(GetWebhookRequest(webhook_id=made.id))
    assert kept.secret == "" and kept.url == URL and kept.event_types == ["payment.settled"]
    [listed] = (await house.of(owner).ListWebhooks(ListWebhooksRequest())).webhooks
    assert listed == kept


async def test_a_webhook_is_changed_by_mask_or_by_what_is_set_and_only_in_the_version_that_is_known(
    house: House,
) -> None:
    owner = house.of(new_id("usr"))
    made = await owner.CreateWebhook(CreateWebhookRequest(url=URL, event_types=["payment.settled"], description="a"))
    masked = UpdateWebhookRequest(
        webhook_id=made.id, webhook=Webhook(url="ignored", etag="1"), update_mask=FieldMask(paths=["event_types"])
    )
    changed = await owner.UpdateWebhook(masked)
    assert (changed.url, list(changed.event_types), changed.etag) == (URL, [], "2")
    assert await refusal(owner.UpdateWebhook(masked)) == "ETAG_MISMATCH"
    by_presence = UpdateWebhookRequest(webhook_id=made.id, webhook=Webhook(url=f"{URL}/2", state=Webhook.DISABLED))
    changed = await owner.UpdateWebhook(by_presence)
    assert (changed.url, changed.state, changed.description) == (f"{URL}/2", Webhook.DISABLED, "a")
    assert (await owner.UpdateWebhook(by_presence)).etag == changed.etag == "3"
    everything = UpdateWebhookRequest(webhook_id=made.id, webhook=Webhook(url=URL), update_mask=FieldMask(paths=["*"]))
    changed = await owner.UpdateWebhook(everything)
    assert (changed.url, changed.state, changed.description) == (URL, Webhook.DISABLED, "")
    secret = UpdateWebhookRequest(webhook_id=made.id, webhook=Webhook(), update_mask=FieldMask(paths=["secret"]))
    assert await refusal(owner.UpdateWebhook(secret)) == "INVALID_UPDATE_MASK"
    for url in ("ftp://example.com/", ""):
        wrong = UpdateWebhookRequest(webhook_id=made.id, webhook=Webhook(url=url), update_mask=FieldMask(paths=["url"]))
        assert await refusal(owner.UpdateWebhook(wrong)) == "INVALID_WEBHOOK_URL"


async def test_an_address_that_nothing_can_be_posted_to_is_refused_with_what_is_wrong(house: House) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.webhook(new_id("usr"), "https://user:pass@example.com/")
    assert reason(refused.value) == "INVALID_WEBHOOK_URL"
    [violation] = detail(refused.value, error_details_pb2.BadRequest()).field_violations
    assert violation.field == "url" and "without user" in violation.description


async def test_others_webhooks_do_not_exist(house: House, receiver: Receiver) -> None:
    owner, stranger = pair()
    webhook = await house.webhook(owner, receiver.url)
    await house.tell(became(owner, new_id("usr")))
    [delivery] = await house.logged(owner, webhook.id, delivered)
    theirs = house.of(stranger)
    update = UpdateWebhookRequest(webhook_id=webhook.id, webhook=Webhook(url=URL))
    for call in (
        theirs.GetWebhook(GetWebhookRequest(webhook_id=webhook.id)),
        theirs.UpdateWebhook(update),
        theirs.DeleteWebhook(DeleteWebhookRequest(webhook_id=webhook.id)),
        theirs.RotateWebhookSecret(RotateWebhookSecretRequest(webhook_id=webhook.id)),
        theirs.ListWebhookDeliveries(ListWebhookDeliveriesRequest(webhook_id=webhook.id)),
        theirs.ReplayWebhookDelivery(ReplayWebhookDeliveryRequest(webhook_id=webhook.id, delivery_id=delivery.id)),
    ):
        assert await refusal(call) == "WEBHOOK_NOT_FOUND"
    assert not (await theirs.ListWebhooks(ListWebhooksRequest())).webhooks
    own = await house.webhook(stranger, receiver.url)
    replay = ReplayWebhookDeliveryRequest(webhook_id=own.id, delivery_id=delivery.id)
    assert await refusal(theirs.ReplayWebhookDelivery(replay)) == "WEBHOOK_DELIVERY_NOT_FOUND"
    assert len(receiver.posts) == 1


async def test_however_many_are_made_at_once_a_user_has_at_most_20_webhooks(house: House) -> None:
    owner = new_id("usr")
    attempts = (house.webhook(owner, URL) for _ in range(2 * WEBHOOKS_PER_USER))
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    refusals = [reason(one) for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
    assert refusals == ["TOO_MANY_WEBHOOKS"] * WEBHOOKS_PER_USER
    webhooks = (await house.of(owner).ListWebhooks(ListWebhooksRequest())).webhooks
    assert len(webhooks) == WEBHOOKS_PER_USER
    await house.of(owner).DeleteWebhook(DeleteWebhookRequest(webhook_id=webhooks[0].id))
    await house.webhook(owner, URL)


async def test_webhooks_stay_as_they_are_when_the_next_release_knows_more_of_them(house: House) -> None:
    owner = new_id("usr")
    made = await house.webhook(owner, URL)
    await house.database.execute("ALTER TABLE webhooks ADD COLUMN of_the_next_release text")
    kept = await house.of(owner).GetWebhook(GetWebhookRequest(webhook_id=made.id))
    assert (kept.id, kept.url) == (made.id, URL)
    assert list((await house.of(owner).ListWebhooks(ListWebhooksRequest())).webhooks) == [kept]
    await house.database.execute("ALTER TABLE webhooks DROP COLUMN of_the_next_release")


async def test_what_is_deleted_is_gone_with_its_log(house: House, receiver: Receiver) -> None:
    owner, other = pair()
    webhook = await house.webhook(owner, receiver.url)
    await house.tell(became(owner, other))
    await house.logged(owner, webhook.id, delivered)
    await house.of(owner).DeleteWebhook(DeleteWebhookRequest(webhook_id=webhook.id))
    assert await refusal(house.log(owner, webhook.id)) == "WEBHOOK_NOT_FOUND"
    left = "SELECT count(*) FROM webhook_secrets FULL JOIN deliveries USING (webhook_id) WHERE webhook_id = $1"
    assert (await house.database.fetch(left, webhook.id))[0]["count"] == 0


async def test_a_webhook_that_is_deleted_while_an_event_is_handled_does_not_make_that_fail(house: House) -> None:
    owner, webhooks, deliveries = new_id("usr"), Webhooks(house.database), Deliveries(house.database)
    webhook = await house.webhook(owner, URL)

    async def waits_or_is_done() -> bool:
        return deleting.done() or bool(await house.database.fetch(waiting))

    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM webhooks%'"
    async with house.database.transaction() as connection:
        [(webhook_id, _)] = await webhooks.subscribed(connection, [owner], "payment.settled")
        deleting = asyncio.create_task(webhooks.delete(owner, webhook.id))
        await eventually(waits_or_is_done)
        message = Message(
            user_id=owner,
            channel=WEBHOOK,
            event_id="payment.pay_1.1",
            event_type="payment.settled",
            payment_id="pay_1",
            body="{}",
            webhook_id=webhook_id,
        )
        await deliveries.add(connection, [message])
    await deleting
    assert not await house.database.fetch("SELECT 1 FROM deliveries WHERE webhook_id = $1", webhook.id)


async def test_around_a_rotation_both_secrets_verify_and_later_only_the_new_one(
    house: House, receiver: Receiver
) -> None:
    owner, other = pair()
    webhook = await house.webhook(owner, receiver.url)
    rotate = RotateWebhookSecretRequest(webhook_id=webhook.id)
    secrets = [webhook.secret]
    for count in (1, 2, 3):
        await house.tell(became(owner, other))
        post = (await posted(receiver, count))[-1]
        assert [verifies(secret, post) for secret in secrets] == [True] * count
        assert len(post.headers["webhook-signature"].split(" ")) == count
        secrets.append((await house.of(owner).RotateWebhookSecret(rotate)).secret)
    assert len(set(secrets)) == 4

    expire = "UPDATE webhook_secrets SET expire_time = now() WHERE webhook_id = $1 AND expire_time IS NOT NULL"
    await house.database.execute(expire, webhook.id)
    await house.tell(became(owner, other))
    post = (await posted(receiver, 4))[-1]
    assert [verifies(secret, post) for secret in secrets] == [False, False, False, True]


async def test_the_newest_secret_signs_first_and_at_most_five_sign(house: House, receiver: Receiver) -> None:
    owner, other = pair()
    webhook = await house.webhook(owner, receiver.url)
    rotate = RotateWebhookSecretRequest(webhook_id=webhook.id)
    rotated = [await house.of(owner).RotateWebhookSecret(rotate) for _ in range(MOST_SECRETS + 1)]
    await house.tell(became(owner, other))
    [post] = await posted(receiver, 1)
    signatures = post.headers["webhook-signature"].split(" ")
    assert len(signatures) == MOST_SECRETS
    for newer, signature in zip(reversed(rotated), signatures, strict=False):
        assert verifies(newer.secret, Post("", post.headers | {"webhook-signature": signature}, post.body))


async def test_the_log_comes_in_pages_newest_first_and_by_state(house: House, receiver: Receiver) -> None:
    owner, other = pair()
    webhook = await house.webhook(owner, receiver.url)
    for _ in range(5):
        await house.tell(became(owner, other))
    everything = await house.logged(owner, webhook.id, delivered, count=5)
    assert [one.id for one in everything] == sorted((one.id for one in everything), reverse=True)
    stub = house.of(owner)
    first = await stub.ListWebhookDeliveries(ListWebhookDeliveriesRequest(webhook_id=webhook.id, page_size=3))
    request = ListWebhookDeliveriesRequest(webhook_id=webhook.id, page_size=3, page_token=first.next_page_token)
    rest = await stub.ListWebhookDeliveries(request)
    assert [*first.deliveries, *rest.deliveries] == everything and not rest.next_page_token
    request.state = WebhookDelivery.FAILED
    assert await refusal(stub.ListWebhookDeliveries(request)) == "INVALID_PAGE_TOKEN"
    request.page_token = ""
    assert not (await stub.ListWebhookDeliveries(request)).deliveries


async def test_a_replayed_delivery_is_posted_again_under_its_id(house: House, receiver: Receiver) -> None:
    owner, other = pair()
    webhook = await house.webhook(owner, receiver.url)
    await house.tell(became(owner, other))
    [delivery] = await house.logged(owner, webhook.id, delivered)
    assert (delivery.attempts, delivery.response_status, delivery.HasField("next_attempt_time")) == (1, 204, False)
    replay = ReplayWebhookDeliveryRequest(webhook_id=webhook.id, delivery_id=delivery.id)
    replayed = await house.of(owner).ReplayWebhookDelivery(replay)
    assert (replayed.state, replayed.attempts) == (WebhookDelivery.PENDING, 1)
    assert replayed.HasField("next_attempt_time")
    one, another = await posted(receiver, 2)
    assert one.body == another.body
    assert one.headers["webhook-id"] == another.headers["webhook-id"] == delivery.id
    assert verifies(webhook.secret, another)
    [again] = await house.logged(owner, webhook.id, lambda one: delivered(one) and one.attempts == 2)
    assert again.last_attempt_time.ToDatetime() > delivery.last_attempt_time.ToDatetime()


async def test_nothing_of_a_disabled_webhook_is_posted_or_replayed(house: House, receiver: Receiver) -> None:
    owner, other = pair()
    webhook = await house.webhook(owner, receiver.url)
    receiver.answer_with(500)
    await house.tell(became(owner, other))
    [failing] = await house.logged(owner, webhook.id, lambda one: one.attempts == 1 and bool(one.error))
    disable = UpdateWebhookRequest(webhook_id=webhook.id, webhook=Webhook(state=Webhook.DISABLED))
    await house.of(owner).UpdateWebhook(disable)
    tries = len(receiver.posts)
    replay = ReplayWebhookDeliveryRequest(webhook_id=webhook.id, delivery_id=failing.id)
    assert await refusal(house.of(owner).ReplayWebhookDelivery(replay)) == "WEBHOOK_DISABLED"
    [given_up] = await house.logged(owner, webhook.id, lambda one: one.state == WebhookDelivery.FAILED)
    assert given_up.error == "the webhook is disabled"
    assert len(receiver.posts) == tries

    heard = await house.webhook(owner, receiver.url)
    await house.tell(became(owner, other, Payment.AUTHORIZED))
    await house.logged(owner, heard.id, lambda one: one.attempts >= 1)
    assert len(await house.log(owner, webhook.id)) == 1

    receiver.answer = None
    enable = UpdateWebhookRequest(webhook_id=webhook.id, webhook=Webhook(state=Webhook.ENABLED))
    await house.of(owner).UpdateWebhook(enable)
    await house.of(owner).ReplayWebhookDelivery(replay)
    await house.logged(owner, webhook.id, delivered)
