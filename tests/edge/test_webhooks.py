"""Webhooks through the real edge and the whole system behind it, to a server that verifies what it is sent."""

import json

from standardwebhooks import Webhook as Verifier

from tests.edge.contract.edge import reason_of
from tests.edge.people import Json, People, Person
from tests.edge.stack import Stack
from tests.traffic.receiver import receiving
from tests.waiting import wait_until

PAYMENTS = 10


def log_of(person: Person, webhook: Json) -> list[Json]:
    deliveries: list[Json] = person.client.get(f"/api/v1/webhooks/{webhook['id']}/deliveries").json()["deliveries"]
    return deliveries


def test_every_event_of_ones_payments_is_posted_and_verifies_though_notification_is_killed(
    people: People, stack: Stack
) -> None:
    payer, payee = people.payer(100), people.sign_up()
    with receiving() as (url, posts):
        created = payer.client.post("/api/v1/webhooks", json={"url": url})
        webhook = created.json()
        assert (created.status_code, created.headers["location"]) == (201, f"/api/v1/webhooks/{webhook['id']}")

        payments = [payer.pay(payee, 1).json()["id"] for _ in range(PAYMENTS // 2)]
        stack.kill("notification")
        payments += [payer.pay(payee, 1).json()["id"] for _ in range(PAYMENTS // 2)]

        def told() -> set[tuple[str, int]]:
            events = [Verifier(webhook["secret"]).verify(body, headers)["data"] for headers, body in list(posts)]
            return {(event["paymentId"], event["sequence"]) for event in events}

        expected = {(payment, sequence) for payment in payments for sequence in (1, 2)}
        # What was claimed when the process was killed is due again a minute later.
        wait_until(lambda: told() >= expected, "not every event was posted", seconds=90)
        assert told() == expected
        assert len({headers["webhook-id"] for headers, _ in posts}) == len(expected)

        def all_delivered() -> bool:
            return {delivery["state"] for delivery in log_of(payer, webhook)} == {"DELIVERED"}

        wait_until(all_delivered, "the log does not say that all is delivered")
        assert len(log_of(payer, webhook)) == len(expected)


def test_a_webhook_is_rotated_replayed_changed_and_deleted_over_rest_by_its_owner_only(people: People) -> None:
    payer, payee = people.payer(10), people.sign_up()
    with receiving() as (url, posts):
        wanted = {"url": url, "eventTypes": ["payment.settled"], "description": "books"}
        webhook = payer.client.post("/api/v1/webhooks", json=wanted).json()
        path = f"/api/v1/webhooks/{webhook['id']}"
        payer.pay(payee, 1).raise_for_status()
        wait_until(lambda: len(posts) == 1, "nothing was posted")
        [delivery] = log_of(payer, webhook)
        assert json.loads(posts[0][1])["data"]["state"] == "SETTLED"

        rotated = payer.client.post(f"{path}:rotateSecret", json={}).json()
        replay = f"{path}/deliveries/{delivery['id']}:replay"
        assert payer.client.post(replay, json={}).json()["state"] == "PENDING"
        wait_until(lambda: len(posts) == 2, "nothing was replayed")
        for secret in (webhook["secret"], rotated["secret"]):
            assert Verifier(secret).verify(posts[1][1], posts[1][0])["type"] == "payment.settled"
        assert posts[0][1] == posts[1][1] and posts[0][0]["webhook-id"] == posts[1][0]["webhook-id"] == delivery["id"]

        assert payee.client.get(path).status_code == 404
        assert reason_of(payee.client.post(replay, json={})) == "WEBHOOK_NOT_FOUND"
        disabled = payer.client.patch(path, params={"updateMask": "state"}, json={"state": "DISABLED"}).json()
        assert (disabled["state"], disabled["description"], disabled.get("secret", "")) == ("DISABLED", "books", "")
        assert reason_of(payer.client.post(replay, json={})) == "WEBHOOK_DISABLED"
        assert payer.client.delete(path).status_code == 204
        assert payer.client.get("/api/v1/webhooks").json()["webhooks"] == []
