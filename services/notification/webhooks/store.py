"""All SQL of webhooks, and of their log."""

from collections.abc import Callable, Collection
from datetime import datetime

import asyncpg

from services.notification.webhooks.domain import (
    MOST_SECRETS,
    SECRET_OVERLAP,
    WEBHOOKS_PER_USER,
    DeliveryState,
    LoggedDelivery,
    State,
    Target,
    TooManyWebhooks,
    Webhook,
    WebhookDeliveryNotFound,
    WebhookDisabled,
    WebhookNotFound,
)
from services.runtime import audit
from services.runtime.paging import Page
from services.runtime.postgres import Connection, Database

_USER_LOCK = 0x776862  # "whb": with the hash of a user's id, what all replicas take to add one of the user's webhooks

_COUNT = "SELECT count(*) FROM webhooks WHERE user_id = $1"
_ADD = """
    INSERT INTO webhooks (id, user_id, url, event_types, description, state, sequence, create_time, update_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"""
_ADD_TO_SECRETS = "INSERT INTO webhook_secrets (webhook_id, secret, create_time) VALUES ($1, $2, $3)"
_SELECT = """
    SELECT id, user_id, url, event_types, description, state, sequence, create_time, update_time FROM webhooks """
_GET = _SELECT + "WHERE user_id = $1 AND id = $2"
_LIST = _SELECT + "WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
_UPDATE = """
    UPDATE webhooks SET url = $2, event_types = $3, description = $4, state = $5, sequence = $6, update_time = $7
    WHERE id = $1"""
_DELETE = "DELETE FROM webhooks WHERE user_id = $1 AND id = $2 RETURNING id"
_GONE = """
    UPDATE webhooks SET state = 'DISABLED', sequence = sequence + 1, update_time = now()
    WHERE id = $1 AND url = $2 AND state = 'ENABLED'"""

_RETIRE_SECRETS = "UPDATE webhook_secrets SET expire_time = $2 WHERE webhook_id = $1 AND expire_time IS NULL"
_DROP_SECRETS = """
    DELETE FROM webhook_secrets WHERE webhook_id = $1 AND (expire_time <= $2 OR secret IN (
        SELECT secret FROM webhook_secrets WHERE webhook_id = $1 ORDER BY expire_time DESC NULLS FIRST OFFSET $3))"""
_TARGET = """
    SELECT url, array_agg(secret ORDER BY expire_time DESC NULLS FIRST) AS secrets
    FROM webhooks JOIN webhook_secrets ON webhook_id = id
    WHERE id = $1 AND state = 'ENABLED' AND (expire_time IS NULL OR expire_time > now())
    GROUP BY id"""
# Locked against deletion, which would else make the event fail that is about to be written for them.
_SUBSCRIBED = """
    SELECT id, user_id FROM webhooks
    WHERE user_id = ANY($1) AND state = 'ENABLED' AND (event_types = '{}' OR $2 = ANY(event_types))
    ORDER BY id FOR KEY SHARE"""

_LOG = """
    SELECT id, webhook_id, event_type, payment_id, state, attempts, response_status, error,
        create_time, last_attempt_time, CASE state WHEN 'PENDING' THEN next_attempt_time END AS next_attempt_time
    FROM deliveries WHERE webhook_id = $1"""
_LIST_LOG = f"{_LOG} AND id < $2 AND ($3::text IS NULL OR state = $3) ORDER BY id DESC LIMIT $4"
_REPLAY = "UPDATE deliveries SET state = 'PENDING', next_attempt_time = now() WHERE webhook_id = $1 AND id = $2"


class Webhooks:
    """Webhooks, their secrets, and the log of what is posted to them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, webhook: Webhook, secret: bytes) -> None:
        """Adds a new webhook. Raises TooManyWebhooks."""
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _USER_LOCK, webhook.user_id)
            if await connection.fetchval(_COUNT, webhook.user_id) >= WEBHOOKS_PER_USER:
                raise TooManyWebhooks(limit=WEBHOOKS_PER_USER)
            await connection.execute(
                _ADD,
                webhook.id,
                webhook.user_id,
                webhook.url,
                webhook.event_types,
                webhook.description,
                webhook.state.name,
                webhook.sequence,
                webhook.create_time,
                webhook.update_time,
            )
            await connection.execute(_ADD_TO_SECRETS, webhook.id, secret, webhook.create_time)
            await audit.record(connection, f"webhooks/{webhook.id}")

    async def get(self, user_id: str, webhook_id: str) -> Webhook:
        """Returns a user's webhook. Raises WebhookNotFound."""
        return _webhook(await self._database.fetchrow(_GET, user_id, webhook_id), webhook_id)

    async def list_of(self, user_id: str, page: Page) -> list[Webhook]:
        """Returns a page of a user's webhooks and the first one after it."""
        rows = await self._database.fetch(_LIST, user_id, page.before, page.rows)
        return [_webhook(row, row["id"]) for row in rows]

    async def update(self, user_id: str, webhook_id: str, change: Callable[[Webhook], Webhook]) -> Webhook:
        """Writes what `change` makes of a webhook, and returns it. Raises WebhookNotFound and what `change` raises."""
        async with self._database.transaction() as connection:
            before = await _locked(connection, user_id, webhook_id)
            webhook = change(before)
            if webhook != before:
                await connection.execute(
                    _UPDATE,
                    webhook.id,
                    webhook.url,
                    webhook.event_types,
                    webhook.description,
                    webhook.state.name,
                    webhook.sequence,
                    webhook.update_time,
                )
                await audit.record(connection, f"webhooks/{webhook_id}")
        return webhook

    async def rotate(self, user_id: str, webhook_id: str, secret: bytes, now: datetime) -> Webhook:
        """Gives a webhook a new secret; those before stay valid for their time. Raises WebhookNotFound."""
        async with self._database.transaction() as connection:
            webhook = await _locked(connection, user_id, webhook_id)
            await connection.execute(_RETIRE_SECRETS, webhook_id, now + SECRET_OVERLAP)
            await connection.execute(_ADD_TO_SECRETS, webhook_id, secret, now)
            await connection.execute(_DROP_SECRETS, webhook_id, now, MOST_SECRETS)
            await audit.record(connection, f"webhooks/{webhook_id}")
        return webhook

    async def delete(self, user_id: str, webhook_id: str) -> None:
        """Deletes a webhook, with its secrets and its log. Raises WebhookNotFound."""
        async with self._database.transaction() as connection:
            if await connection.fetchrow(_DELETE, user_id, webhook_id) is None:
                raise WebhookNotFound(webhook_id=webhook_id)
            await audit.record(connection, f"webhooks/{webhook_id}")

    async def gone(self, webhook_id: str, url: str) -> None:
        """Disables a webhook whose server said that it is gone, unless it has another address by now."""
        await self._database.execute(_GONE, webhook_id, url)

    async def target(self, webhook_id: str) -> Target | None:
        """Returns where to post to and what to sign with; None where the webhook is disabled."""
        row = await self._database.fetchrow(_TARGET, webhook_id)
        return None if row is None else Target(row["url"], tuple(row["secrets"]))

    async def subscribed(
        self, connection: Connection, user_ids: Collection[str], event_type: str
    ) -> list[tuple[str, str]]:
        """Returns id and user of these users' webhooks that are to hear of an event; they stay until the commit."""
        return [(row["id"], row["user_id"]) for row in await connection.fetch(_SUBSCRIBED, user_ids, event_type)]

    async def log(self, webhook_id: str, state: DeliveryState | None, page: Page) -> list[LoggedDelivery]:
        """Returns a page of what is posted to a webhook and the first one after it."""
        name = state and state.name
        return [_logged(row) for row in await self._database.fetch(_LIST_LOG, webhook_id, page.before, name, page.rows)]

    async def replay(self, user_id: str, webhook_id: str, delivery_id: str) -> LoggedDelivery:
        """Makes a delivery due, whatever became of it.

        Raises WebhookNotFound, WebhookDisabled or WebhookDeliveryNotFound.
        """
        async with self._database.transaction() as connection:
            webhook = await _locked(connection, user_id, webhook_id)
            if webhook.state is State.DISABLED:
                raise WebhookDisabled(webhook_id)
            await connection.execute(_REPLAY, webhook_id, delivery_id)
            row = await connection.fetchrow(f"{_LOG} AND id = $2", webhook_id, delivery_id)
            if row is None:
                raise WebhookDeliveryNotFound(webhook_id=webhook_id, delivery_id=delivery_id)
            await audit.record(connection, f"webhooks/{webhook_id}/deliveries/{delivery_id}")
            return _logged(row)


async def _locked(connection: Connection, user_id: str, webhook_id: str) -> Webhook:
    return _webhook(await connection.fetchrow(f"{_GET} FOR NO KEY UPDATE", user_id, webhook_id), webhook_id)


def _webhook(row: asyncpg.Record | None, webhook_id: str) -> Webhook:
    if row is None:
        raise WebhookNotFound(webhook_id=webhook_id)
    return Webhook(**{**row, "event_types": tuple(row["event_types"]), "state": State[row["state"]]})


def _logged(row: asyncpg.Record) -> LoggedDelivery:
    return LoggedDelivery(**{**row, "state": DeliveryState[row["state"]]})
