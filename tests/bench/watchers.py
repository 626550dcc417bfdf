"""What status streams cost and how late they are: memory of each watcher over all processes, and commit to client.

Usage: python -m tests.bench.watchers [WATCHERS]. Starts a stack of its own and ends it.
"""

import asyncio
import json
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import httpx
import psutil
import psycopg
import uvloop

from scripts.stack import lifecycle, postgres, supervision
from scripts.stack.folder import run_folder
from scripts.stack.settings import SERVERS
from services.runtime.ids import new_id
from tests.bench.watching import Watcher
from tests.edge.people import People, Person
from tests.edge.replica import second_replica
from tests.edge.stack import Stack

PER_USER = 100
"""Streams, the default limit."""
CHANGES_PER_SECOND = 100
FEED_CHANGES_PER_SECOND = 1
OPENED_AT_ONCE = 50
PROCESSES = ("envoy", *SERVERS, "postgres", "nats")
_RESERVE = "UPDATE accounts SET reserved = reserved + %s WHERE owner_id = %s RETURNING id"
_ADD_PAYMENT = """
    INSERT INTO payments (id, payer_id, payee_id, payer_account_id, payee_account_id, currency_code, amount,
        description, state, state_reason, risk_score, sequence, create_time, update_time, review_expire_time)
    VALUES (%s, %s, %s, %s, %s, 'EUR', 1, '', 'IN_REVIEW', 'RISK_REVIEW', 50, 1, now(), now(), now() + interval '1 day')
    RETURNING id"""


@dataclass(frozen=True)
class Seeded:
    """A payment in review, and its payer, who may cancel it."""

    id: str
    payer: Person


def main(number: int) -> None:
    """Measures and prints."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-bench-")))
    try:
        settings = lifecycle.up(folder, edge_port=0, edge_tls_port=0)
        stack = Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
        with ExitStack() as clients:
            people = People(stack, clients)
            users = [people.sign_up() for _ in range(max(number // PER_USER, 2))]
            for user in users:
                people.deposit(user, 1_000_000).raise_for_status()
            uvloop.run(_measure(stack, users, number))
    finally:
        lifecycle.clean(folder)


async def _measure(stack: Stack, users: list[Person], number: int) -> None:
    feeds = [("/api/v1/payments/events", user) for user in users for _ in range(number // len(users))]
    warm_up = await _opened(stack, feeds[:100])
    await _change(stack, _seed(stack, users, 30), per_second=1000)  # all connections to Postgres are open now
    await _closed(warm_up)

    before = _memory(stack)
    watching = await _opened(stack, feeds)
    await asyncio.sleep(20)  # a heartbeat each, and what was needed only to open them is given back
    _print_memory(before, _memory(stack), number)
    payments = _seed(stack, users, 80)
    await _change(stack, payments[:20], FEED_CHANGES_PER_SECOND)
    _print("feeds of all payments of a user", watching, await _positions(stack, feeds))

    changing = asyncio.create_task(_change(stack, payments[20:], FEED_CHANGES_PER_SECOND))
    await _roll(stack)
    await changing
    print("Envoy's refusals:", _refusals(stack))
    _print("the same while payment is restarted, a replica at a time", watching, await _positions(stack, feeds))
    await _closed(watching)

    payments = _seed(stack, users, number)
    each = [(f"/api/v1/payments/{payment.id}/status", payment.payer) for payment in payments]
    watching = await _opened(stack, each)
    await _change(stack, payments, CHANGES_PER_SECOND)
    _print("status of a payment each", watching, [2] * number)
    await _closed(watching)


async def _opened(stack: Stack, streams: list[tuple[str, Person]]) -> list[tuple[Watcher, asyncio.Task[None]]]:
    began = asyncio.get_running_loop().time()
    watching = []
    for path, person in streams:
        token = person.client.headers["authorization"].removeprefix("Bearer ")
        watcher = Watcher(stack.edge_url, path, token)
        watching.append((watcher, asyncio.create_task(watcher.run())))
        if len(watching) > OPENED_AT_ONCE:
            await watching[-OPENED_AT_ONCE][0].first_opened.wait()
    for watcher, _ in watching:
        await watcher.first_opened.wait()
    print(f"{len(streams)} streams opened in {asyncio.get_running_loop().time() - began:.1f} s")
    return watching


async def _closed(watching: list[tuple[Watcher, asyncio.Task[None]]]) -> None:
    for _, task in watching:
        task.cancel()
    await asyncio.gather(*(task for _, task in watching), return_exceptions=True)
    await asyncio.sleep(1)


def _seed(stack: Stack, users: list[Person], number: int) -> list[Seeded]:
    """Adds payments in review straight to the database: to make them takes longer, and is not what is measured."""
    with psycopg.connect(postgres.url(stack.settings.folder, "payment", "payment")) as connection:
        accounts = {
            user.id: connection.execute(_RESERVE, (number, user.id)).fetchone()[0]  # type: ignore[index]
            for user in users
        }
        seeded = []
        for index in range(number):
            payer, payee = users[index % len(users)], users[(index + 1) % len(users)]
            payment_id = new_id("pay")
            values = (payment_id, payer.id, payee.id, accounts[payer.id], accounts[payee.id])
            connection.execute(_ADD_PAYMENT, values)
            seeded.append(Seeded(payment_id, payer))
    return seeded


async def _change(stack: Stack, payments: list[Seeded], per_second: float) -> None:
    """Cancels payments at a rate, and waits a little for the last to be told of."""
    async with httpx.AsyncClient(base_url=stack.edge_url, trust_env=False, timeout=20) as client:

        async def cancel(payment: Seeded) -> None:
            headers = dict(payment.payer.client.headers)
            while True:
                done = await client.post(f"/api/v1/payments/{payment.id}:cancel", json={}, headers=headers)
                if done.status_code in {200, 400}:  # 400: it was done, and the answer was lost
                    return

        async with asyncio.TaskGroup() as tasks:
            for payment in payments:
                tasks.create_task(cancel(payment))
                await asyncio.sleep(1 / per_second)
    await asyncio.sleep(4)


async def _roll(stack: Stack) -> None:
    """Replaces payment: another replica begins, the first is restarted, and the other leaves."""
    other = ExitStack()
    await asyncio.to_thread(other.enter_context, second_replica(stack, "payment"))
    await asyncio.sleep(3)
    await asyncio.to_thread(supervision.stop_process, stack.settings.folder, "payment")
    await asyncio.to_thread(supervision.start_process, stack.settings.folder, "payment")
    await asyncio.to_thread(stack.wait_until_ready, "payment")
    await asyncio.sleep(8)  # until the edge believes in it again
    await asyncio.to_thread(other.close)


def _refusals(stack: Stack) -> dict[str, int]:
    lines = [json.loads(line) for line in stack.log("envoy").splitlines() if line.startswith("{")]
    return dict(Counter(f"{line['status']} {line.get('details')}" for line in lines if line["status"] >= 400))


async def _positions(stack: Stack, feeds: list[tuple[str, Person]]) -> list[int]:
    with psycopg.connect(postgres.url(stack.settings.folder, "payment", "payment")) as connection:
        counts: dict[str, int] = dict(connection.execute("SELECT user_id, events FROM user_event_counts").fetchall())
    return [counts[person.id] for _, person in feeds]


def _print(what: str, watching: list[tuple[Watcher, asyncio.Task[None]]], expected: list[int]) -> None:
    watchers = [watcher for watcher, _ in watching]
    delays = [delay for watcher in watchers for delay in watcher.delays]
    behind = sum(last - watcher.last_id for watcher, last in zip(watchers, expected, strict=True))
    percentiles = quantiles(delays, n=100) if len(delays) > 1 else [0.0] * 99
    refused = [why for watcher in watchers for why in watcher.refused]
    print(
        f"{what}: {len(delays)} events, {behind + sum(one.missed for one in watchers)} missed, "
        f"{sum(one.repeated for one in watchers)} repeated, {sum(one.opened - 1 for one in watchers)} opened again, "
        f"{len(refused)} refused {dict(Counter(refused))}\n"
        f"  commit to client: p50 {percentiles[49] * 1000:.0f} ms, p99 {percentiles[98] * 1000:.0f} ms, "
        f"max {max(delays, default=0) * 1000:.0f} ms",
        flush=True,
    )
    for watcher in watchers:
        watcher.delays.clear()


def _memory(stack: Stack) -> dict[str, int]:
    """The bytes that each process and its children have for themselves, and their share of what they share."""
    found = {}
    for name in PROCESSES:
        process = psutil.Process(supervision.pid(stack.settings.folder, name))
        found[name] = sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True)))
    return found


def _print_memory(before: dict[str, int], after: dict[str, int], number: int) -> None:
    for name, used in before.items():
        grown = after[name] - used
        print(
            f"{name:<14}{used / 2**20:7.1f} MiB + {grown / 2**20:6.1f} MiB, {grown / number / 1024:6.1f} KiB a watcher"
        )
    grown = sum(after.values()) - sum(before.values())
    print(f"{'all':<14}{grown / number / 1024:6.1f} KiB a watcher", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
