"""Deliveries and the workers that send them, on a real Postgres, by channels that fail and dawdle as they are told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from services.notification.delivery import worker as sending
from services.notification.delivery.domain import Delivery, Outcome
from services.notification.delivery.store import Deliveries
from services.runtime.postgres import DatabaseUnavailable
from tests.integration.conftest import FreshDatabase
from tests.integration.delivering import Fake, House, delivering
from tests.waiting import eventually


@pytest.fixture(scope="module")
def url(fresh_database: FreshDatabase) -> str:
    return fresh_database("notification")


@pytest.fixture
async def house(url: str) -> AsyncIterator[House]:
    async with delivering(url) as house:
        yield house


async def test_two_workers_share_the_work_and_send_every_delivery_once(house: House) -> None:
    ids = {one for _ in range(150) for one in await house.add("EMAIL")}
    channels = [Fake(), Fake()]
    for channel in channels:
        await house.start({"EMAIL": channel})
    for delivery_id in ids:
        assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
    one, other = (channel.sent for channel in channels)
    assert len(one) + len(other) == len(ids)
    assert {*one, *other} == ids
    assert one
    assert other


async def test_a_slow_target_holds_up_itself_only_and_is_asked_by_few_at_once(house: House) -> None:
    slow, fast = Fake(held=True), Fake()
    sms = [one for _ in range(20) for one in await house.add("SMS")]
    await house.start({"SMS": slow, "EMAIL": fast})
    emails = [one for _ in range(50) for one in await house.add("EMAIL")]
    for delivery_id in emails:
        assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
    assert len(slow.sent) == sending.AT_ONCE_TO["SMS"] < len(sms)
    slow.released.set()
    for delivery_id in sms:
        assert await house.ended(delivery_id) == ("DELIVERED", 1, "")


async def failing_webhook(house: House, channel: Fake) -> str:
    """A webhook that has just failed, by a channel that from now on is held."""
    webhook = await house.webhook()
    channel.failure = RuntimeError("no")
    channel.released.set()
    [first] = await house.announce(webhook)
    await house.tried(first)
    channel.released.clear()
    return webhook


async def test_a_webhook_that_fails_is_asked_by_one_at_once(house: House) -> None:
    failing = Fake()
    await house.start({"WEBHOOK": failing})
    webhook = await failing_webhook(house, failing)
    for _ in range(5):
        await house.announce(webhook)
    with pytest.raises(TimeoutError):
        await eventually(_true(lambda: len(failing.sent) > 2), seconds=2.0)
    assert len(failing.sent) == 2
    failing.failure = None
    failing.released.set()
    await eventually(_true(lambda: len(set(failing.sent)) == 6))


async def test_a_webhook_that_failed_long_ago_is_like_any_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "REMEMBERED_SECONDS", 0.0)
    failing = Fake()
    await house.start({"WEBHOOK": failing})
    webhook = await failing_webhook(house, failing)
    for _ in range(5):
        await house.announce(webhook)
    await eventually(_true(lambda: len(failing.sent) == 1 + sending.AT_ONCE_TO_A_WEBHOOK))
    failing.released.set()


async def test_a_provider_is_asked_by_as_many_however_slow_it_is_and_whatever_it_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SLOW_SECONDS", 0.0)
    failing = Fake()
    failing.failure = RuntimeError("no")
    await house.start({"SMS": failing})
    [first] = await house.add("SMS")
    await house.tried(first)
    failing.released.clear()
    for _ in range(20):
        await house.add("SMS")
    await eventually(_true(lambda: len(failing.sent) == 1 + sending.AT_ONCE_TO["SMS"]))
    failing.released.set()


class Hangs(Fake):
    """Fails at first, and from then on keeps all hanging but those to one webhook."""

    honest = ""

    async def send(self, delivery: Delivery) -> int:
        if delivery.webhook_id == self.honest:
            return 204
        return await super().send(delivery)


async def test_however_many_webhooks_hang_there_is_room_for_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "AT_ONCE", 8)
    monkeypatch.setattr(sending, "AT_ONCE_TO_SUCH", 4)
    channel = Hangs()
    channel.honest = await house.webhook()
    hanging = [await house.webhook() for _ in range(10)]
    channel.failure = RuntimeError("no")
    firsts = await house.announce(*hanging)
    await house.start({"WEBHOOK": channel})
    for first in firsts:
        await house.tried(first)
    channel.released.clear()
    tried = len(channel.sent)
    await house.announce(*hanging)
    await eventually(_true(lambda: len(channel.sent) == tried + 4))
    for _ in range(3):
        [delivery_id] = await house.announce(channel.honest)
        assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
    assert len(channel.sent) == tried + 4
    channel.failure = None
    channel.released.set()
    for first in firsts:
        assert (await house.ended(first))[0] == "DELIVERED"


async def test_what_was_sent_by_a_worker_that_was_killed_is_sent_again_under_the_same_id(house: House) -> None:
    dead, alive = Fake(held=True), Fake()  # what was sent is never written down
    await house.start({"SMS": dead})
    [delivery_id] = await house.add("SMS")
    await eventually(_true(lambda: dead.sent == [delivery_id]))
    await house.start({"SMS": alive})
    leased = await house.row(delivery_id)
    assert leased["next_attempt_time"] - leased["last_attempt_time"] > timedelta(seconds=sending.SEND_SECONDS)
    await house.database.execute("UPDATE deliveries SET next_attempt_time = now()")  # the lease ends
    assert await house.ended(delivery_id) == ("DELIVERED", 2, "")
    assert alive.sent == [delivery_id]
    dead.failure = RuntimeError("too late")
    dead.released.set()
    await house.stop()
    assert await house.ended(delivery_id) == ("DELIVERED", 2, "")


async def test_a_worker_does_not_begin_again_what_it_is_still_at(house: House) -> None:
    channel = Fake(held=True)
    await house.start({"SMS": channel})
    [slow] = await house.add("SMS")
    await eventually(_true(lambda: channel.sent == [slow]))
    await house.database.execute("UPDATE deliveries SET next_attempt_time = now()")  # Postgres was away for long, say
    [next_one] = await house.add("SMS")
    await eventually(_true(lambda: channel.sent == [slow, next_one]))
    channel.released.set()
    assert await house.ended(slow) == ("DELIVERED", 1, "")


async def test_a_worker_that_is_stopped_ends_what_it_has_begun(house: House) -> None:
    channel = Fake(held=True)
    running = await house.start({"SMS": channel})
    [delivery_id] = await house.add("SMS")
    await eventually(_true(lambda: channel.sent == [delivery_id]))
    running.cancel()
    [later] = await house.add("SMS")
    channel.released.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
    assert (await house.row(later))["attempts"] == 0


class Forgetful(Deliveries):
    """Postgres is away for a while whenever something was sent."""

    async def record(self, delivery: Delivery, outcome: Outcome) -> None:
        self.lost = getattr(self, "lost", 0) + 1
        if self.lost % 3:
            raise DatabaseUnavailable
        await super().record(delivery, outcome)


async def test_what_was_sent_is_written_down_when_postgres_is_back(house: House) -> None:
    channel = Fake()
    await house.start({"SMS": channel}, Forgetful)
    [delivery_id] = await house.add("SMS")
    assert await house.ended(delivery_id) == ("DELIVERED", 1, "")
    assert channel.sent == [delivery_id]


async def test_a_delivery_is_given_up_after_three_days(house: House) -> None:
    channel = Fake()
    channel.failure = RuntimeError("with a secret")
    [old, young] = [one for _ in range(2) for one in await house.add("SMS")]
    age = "UPDATE deliveries SET create_time = now() - $2::interval WHERE id = $1"
    await house.database.execute(age, old, timedelta(days=3, minutes=1))
    await house.database.execute(age, young, timedelta(days=2, hours=23))
    await house.start({"SMS": channel})
    assert await house.ended(old) == ("FAILED", 1, "RuntimeError")
    assert (await house.tried(young))["state"] == "PENDING"


async def test_the_log_of_a_webhook_names_no_part_of_ours(house: House) -> None:
    channel = Fake()
    channel.failure = DatabaseUnavailable()
    [delivery_id] = await house.announce(await house.webhook())
    await house.start({"WEBHOOK": channel})
    assert (await house.tried(delivery_id))["error"] == "a fault on our side"


async def test_what_a_channel_was_switched_off_for_waits(house: House) -> None:
    [delivery_id] = await house.add("EMAIL")
    off = await house.start({})
    assert (await house.tried(delivery_id))["error"] == "the channel is switched off"
    off.cancel()
    await house.start({"EMAIL": Fake()})
    assert (await house.ended(delivery_id))[0] == "DELIVERED"


async def test_old_deliveries_are_swept(house: House) -> None:
    [old, new] = [one for _ in range(2) for one in await house.add("SMS")]
    await house.database.execute("UPDATE deliveries SET create_time = now() - interval '31 days' WHERE id = $1", old)
    await Deliveries(house.database).sweep().batch()
    assert (await house.row(old), (await house.row(new))["id"]) == (None, new)


def _true(condition: Callable[[], bool]) -> Callable[[], Any]:
    async def holds() -> bool:
        return condition()

    return holds
