"""Notifications and preferences: what users are told, read, and want to be told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from document.v1.document_pb2 import Document, DocumentCheck, DocumentEvent
from google.rpc import error_details_pb2
from notification.v1 import notification_pb2
from payment.v1.payment_pb2 import Payment
from user.v1.password_pb2 import PasswordEvent

from services.notification.delivery.domain import RESET_REQUESTED
from services.notification.store import Notifications
from services.runtime.ids import new_id
from tests.integration.conftest import FreshDatabase
from tests.integration.notifying import House, became, open_house
from tests.integration.serving import detail, reason
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("notification"), nats_url, certificates) as opened:
        yield opened


async def test_payer_and_payee_are_told_about_a_payment_that_settles(house: House) -> None:
    payer, payee, payment_id = new_id("usr"), new_id("usr"), new_id("pay")
    await house.tell(became(payment_id, 1, Payment.AUTHORIZED, payer, payee))
    await house.tell(became(payment_id, 2, Payment.SETTLED, payer, payee))
    paid, authorized = await house.told(payer, 2)
    assert (paid.kind, paid.text, paid.payment_id) == ("PAYMENT_SETTLED", "You paid 42.50 EUR.", payment_id)
    assert (authorized.kind, authorized.create_time.ToDatetime().minute) == ("PAYMENT_AUTHORIZED", 1)
    [received] = await house.told(payee, 1)
    assert (received.kind, received.text) == ("PAYMENT_SETTLED", "You received 42.50 EUR.")
    assert received.id.startswith("ntf_")
    assert not received.HasField("read_time")


async def test_a_list_comes_in_pages_newest_first_and_only_to_its_user(house: House) -> None:
    payer, payee = new_id("usr"), new_id("usr")
    for _ in range(5):
        await house.tell(became(new_id("pay"), 1, Payment.AUTHORIZED, payer, payee))
    everything = await house.told(payer, 5)
    first = await house.list_of(payer, size=3)
    rest = await house.list_of(payer, size=3, token=first.next_page_token)
    assert [*first.notifications, *rest.notifications] == everything
    assert rest.next_page_token == ""
    assert not (await house.list_of(payee)).notifications
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.list_of(payee, token=first.next_page_token)
    assert reason(refused.value) == "INVALID_PAGE_TOKEN"


async def told_of(house: House, payments: int) -> tuple[str, list[notification_pb2.Notification]]:
    """A payer who has been told of so many payments, and what, newest first."""
    payer = new_id("usr")
    for _ in range(payments):
        await house.tell(became(new_id("pay"), 1, Payment.AUTHORIZED, payer, new_id("usr")))
    return payer, await house.told(payer, payments)


async def test_what_is_read_is_no_longer_counted_and_stays_read(house: House) -> None:
    payer, [third, second, first] = await told_of(house, 3)
    assert await house.unread(payer) == 3
    request = notification_pb2.ReadNotificationRequest(notification_id=second.id)
    read = await house.of(payer).ReadNotification(request)
    assert read.HasField("read_time")
    assert await house.of(payer).ReadNotification(request) == read
    assert await house.unread(payer) == 2
    assert list((await house.list_of(payer)).notifications) == [third, read, first]
    assert list((await house.list_of(payer, unread_only=True)).notifications) == [third, first]


async def test_everything_can_be_read_at_once(house: House) -> None:
    payer, [second, first] = await told_of(house, 2)
    other, _ = await told_of(house, 1)
    read = await house.of(payer).ReadNotification(notification_pb2.ReadNotificationRequest(notification_id=first.id))
    left = await house.of(payer).ReadAllNotifications(notification_pb2.ReadAllNotificationsRequest())
    assert (left.unread_count, await house.unread(payer), await house.unread(other)) == (0, 0, 1)
    now_second, now_first = (await house.list_of(payer)).notifications
    assert now_first.read_time == read.read_time
    assert now_second.id == second.id
    assert now_second.HasField("read_time")


async def test_a_notification_of_somebody_else_is_not_there_to_be_read(house: House) -> None:
    payer, [mine] = await told_of(house, 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.of(new_id("usr")).ReadNotification(
            notification_pb2.ReadNotificationRequest(notification_id=mine.id)
        )
    assert reason(refused.value) == "NOTIFICATION_NOT_FOUND"
    assert await house.unread(payer) == 1


async def test_a_page_of_the_unread_does_not_continue_the_list_of_all(house: House) -> None:
    payer, _ = await told_of(house, 2)
    unread = await house.list_of(payer, size=1, unread_only=True)
    assert (await house.list_of(payer, size=1, token=unread.next_page_token, unread_only=True)).notifications
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.list_of(payer, size=1, token=unread.next_page_token)
    assert reason(refused.value) == "INVALID_PAGE_TOKEN"


async def test_who_never_said_otherwise_is_told_in_the_app_and_by_email(house: House) -> None:
    preferences = await house.of(new_id("usr")).GetPreferences(notification_pb2.GetPreferencesRequest())
    assert (preferences.in_app, preferences.email, preferences.sms, preferences.push) == (True, True, False, False)
    assert (preferences.phone_number, preferences.push_token) == ("", "")
    assert not preferences.HasField("update_time")


async def test_preferences_change_in_what_is_set_or_in_what_the_mask_names(house: House) -> None:
    user = new_id("usr")
    assert not (await house.update(user, email=False)).email
    changed = await house.update(user, "sms", "phone_number", sms=True, phone_number="+4915112345678", in_app=False)
    assert (changed.email, changed.sms, changed.in_app) == (False, True, True)
    assert changed.HasField("update_time")
    assert await house.of(user).GetPreferences(notification_pb2.GetPreferencesRequest()) == changed
    assert (await house.update(user, "email")).email, "named without a value: the default again"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.update(user, "update_time")
    assert reason(refused.value) == "INVALID_UPDATE_MASK"


@pytest.mark.parametrize(("channel", "address"), [("sms", "phone_number"), ("push", "push_token")])
async def test_a_channel_needs_an_address_as_long_as_it_is_on(house: House, channel: str, address: str) -> None:
    user = new_id("usr")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.update(user, **{channel: True})
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert reason(refused.value) == "CHANNEL_ADDRESS_REQUIRED"
    [violation] = detail(refused.value, error_details_pb2.PreconditionFailure()).violations
    assert violation.subject == channel
    await house.update(user, **{channel: True, address: "+4915112345678"})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.update(user, address)
    assert reason(refused.value) == "CHANNEL_ADDRESS_REQUIRED"
    await house.update(user, channel, address)


async def test_of_two_updates_of_the_same_preferences_one_wins(house: House) -> None:
    user = new_id("usr")
    etag = (await house.of(user).GetPreferences(notification_pb2.GetPreferencesRequest())).etag
    answers = await asyncio.gather(
        *(house.update(user, etag=etag, push_token=f"device {number}", push=True) for number in range(5)),
        return_exceptions=True,
    )
    [won] = [answer for answer in answers if not isinstance(answer, BaseException)]
    lost = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert {reason(answer) for answer in lost} == {"ETAG_MISMATCH"}
    assert await house.of(user).GetPreferences(notification_pb2.GetPreferencesRequest()) == won
    assert await house.update(user, etag=won.etag, push_token=won.push_token) == won, "nothing new, nothing changed"


async def test_each_is_told_by_the_channels_that_are_wanted_and_that_there_are(house: House) -> None:
    payer, payee, payment_id = new_id("usr"), new_id("usr"), new_id("pay")
    await house.update(payer, in_app=False, sms=True, phone_number="+4915112345678", push=True, push_token="device")
    await house.update(payee, email=False)
    await house.tell(became(payment_id, 1, Payment.SETTLED, payer, payee))
    [received] = await house.told(payee, 1)
    assert received.payment_id == payment_id
    rows = await house.database.fetch("SELECT * FROM deliveries WHERE payment_id = $1 ORDER BY channel", payment_id)
    assert [(row["user_id"], row["channel"], row["body"]) for row in rows] == [
        (payer, "EMAIL", "You paid 42.50 EUR."),
        (payer, "SMS", "You paid 42.50 EUR."),
    ]
    assert {(row["event_id"], row["event_type"]) for row in rows} == {(f"payment.{payment_id}.1", "payment.settled")}
    assert not (await house.list_of(payer)).notifications


def read(
    document_id: str,
    sequence: int,
    state: Document.State.ValueType,
    owner: str,
    *details: str,
    unchanged: bool = False,
) -> DocumentEvent:
    event = DocumentEvent(
        unchanged=unchanged,
        document_id=document_id,
        sequence=sequence,
        owner_id=owner,
        kind=Document.PASSPORT,
        state=state,
        problems=[DocumentCheck(name="A", outcome=DocumentCheck.FAILED, detail=detail) for detail in details],
    )
    event.create_time.FromDatetime(datetime(2026, 11, 21, 12, sequence, tzinfo=UTC))
    return event


async def test_the_owner_is_told_what_became_of_a_document_once_it_was_read(house: House) -> None:
    owner, document_id = new_id("usr"), new_id("doc")
    await house.tell(read(document_id, 2, Document.REJECTED, owner, "The document has expired.", "And more."))
    await house.tell(read(document_id, 3, Document.PENDING, owner))
    await house.tell(read(document_id, 4, Document.VERIFIED, owner))
    accepted, refused = await house.told(owner, 2)
    assert (accepted.kind, accepted.text) == ("DOCUMENT_VERIFIED", "Your passport was accepted.")
    assert refused.text == "Your passport was not accepted. The document has expired."
    assert (refused.kind, refused.document_id, refused.payment_id) == ("DOCUMENT_REJECTED", document_id, "")
    rows = await house.database.fetch("SELECT * FROM deliveries WHERE user_id = $1 ORDER BY id", owner)
    assert [(row["channel"], row["event_type"], row["event_id"], row["payment_id"]) for row in rows] == [
        ("EMAIL", "document.rejected", f"document.{document_id}.2", ""),
        ("EMAIL", "document.verified", f"document.{document_id}.4", ""),
    ]


async def test_the_owner_is_not_told_again_what_a_document_was_before_it_was_read_anew(house: House) -> None:
    owner, document_id, other_id = new_id("usr"), new_id("doc"), new_id("doc")
    await house.tell(read(document_id, 2, Document.REJECTED, owner, "The document has expired."))
    await house.tell(read(document_id, 3, Document.PENDING, owner))
    await house.tell(read(document_id, 4, Document.REJECTED, owner, "The document has expired.", unchanged=True))
    await house.tell(read(other_id, 2, Document.VERIFIED, owner))
    told = await house.told(owner, 2)
    assert [one.document_id for one in told] == [other_id, document_id]
    assert len(await house.database.fetch("SELECT FROM deliveries WHERE user_id = $1", owner)) == 2


def of_password(user_id: str, kind: PasswordEvent.Kind.ValueType) -> PasswordEvent:
    event = PasswordEvent(id=new_id("pwd"), user_id=user_id, kind=kind)
    event.create_time.FromDatetime(datetime(2026, 11, 21, 12, tzinfo=UTC))
    return event


async def test_a_new_password_is_told_of_by_mail_and_in_the_app_whatever_the_user_prefers(house: House) -> None:
    user = new_id("usr")
    mask = ("in_app", "email", "sms", "phone_number")
    await house.update(user, *mask, in_app=False, email=False, sms=True, phone_number="+4915112345678")
    await house.tell_of_password(of_password(user, PasswordEvent.CHANGED))
    [told] = await house.told(user, 1)
    assert (told.kind, told.payment_id, told.document_id) == ("PASSWORD_CHANGED", "", "")
    assert told.text.startswith("Your password was changed. If it was not you,")
    [row] = await house.database.fetch("SELECT * FROM deliveries WHERE user_id = $1", user)
    assert (row["channel"], row["event_type"], row["body"]) == ("EMAIL", "password.changed", told.text)


async def test_a_code_that_was_asked_for_is_a_matter_of_mail_alone(house: House) -> None:
    user = new_id("usr")
    requested, changed = of_password(user, PasswordEvent.RESET_REQUESTED), of_password(user, PasswordEvent.CHANGED)
    await house.update(user, "email", email=False)
    for event in (requested, changed):
        await house.tell_of_password(event)

    async def delivery() -> Any:
        return await house.database.fetchrow("SELECT * FROM deliveries WHERE event_id = $1", f"password.{requested.id}")

    await eventually(delivery)
    row = await delivery()
    assert (row["user_id"], row["channel"], row["event_type"], row["body"]) == (user, "EMAIL", RESET_REQUESTED, "")
    assert [one.kind for one in await house.told(user, 1)] == ["PASSWORD_CHANGED"]


async def test_notifications_are_kept_for_400_days_whether_they_are_read_or_not(house: House) -> None:
    payer, [third, second, first] = await told_of(house, 3)
    for one in (first, second):
        age = "UPDATE notifications SET create_time = now() - interval '401 days' WHERE id = $1"
        await house.database.execute(age, one.id)
    for one in (first, third):
        request = notification_pb2.ReadNotificationRequest(notification_id=one.id)
        await house.of(payer).ReadNotification(request)
    await Notifications(house.database).sweep().batch()
    assert [one.id for one in (await house.list_of(payer)).notifications] == [third.id]
    assert await house.unread(payer) == 0
