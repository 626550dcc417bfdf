"""Many requests with one key at once: one payment, and the same answer to all."""

import asyncio
import os
import time
from datetime import UTC, datetime

import httpx

from tests.faults.conftest import Scene
from tests.faults.log import IN_USE, Wish, answer_of, pay

KEYS = 200 if os.environ.get("FAULTS") else 20
AT_ONCE = 50
CENTS = 4321


async def ask(client: httpx.AsyncClient, wish: Wish) -> None:
    """Asks until the key is not in use any more."""
    while True:
        sent, started = datetime.now(UTC), time.monotonic()
        headers = {"idempotency-key": wish.key, "authorization": wish.who.client.headers["authorization"]}
        response = await client.post(f"/api/v1/{wish.path}", json=wish.body, headers=headers)
        answer = answer_of(response, time.monotonic() - started, sent)
        wish.answers.append(answer)
        if (answer.status, answer.reason) != IN_USE:
            return
        await asyncio.sleep(answer.retry_after)


def test_fifty_requests_at_once_with_one_key_are_one_payment(scene: Scene) -> None:
    payer, payee, *_ = scene.town.people
    wishes = [pay(scene.log, payer, payee, CENTS) for _ in range(KEYS)]

    async def ask_all() -> None:
        limits = httpx.Limits(max_connections=AT_ONCE)
        url = scene.stack.edge_url
        async with httpx.AsyncClient(base_url=url, limits=limits, trust_env=False, timeout=20) as client:
            for wish in wishes:
                await asyncio.gather(*(ask(client, wish) for _ in range(AT_ONCE)))

    asyncio.run(ask_all())
    for wish in wishes:
        assert {(one.status, one.reason) for one in wish.answers} <= {(201, ""), IN_USE}
        assert len(wish.granted) == AT_ONCE
        assert len({(one.content, one.location) for one in wish.granted}) == 1
        assert sum(not one.replayed for one in wish.granted) == 1
    book = scene.check()
    keys = {wish.key for wish in wishes}
    assert len([row for row in book.payments if row["description"] in keys]) == KEYS
