"""The servicer of webhooks: proto to domain to proto."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf import empty_pb2
from notification.v1 import webhook_pb2, webhook_pb2_grpc

from services.notification.delivery.store import Deliveries
from services.notification.webhooks import signature
from services.notification.webhooks.domain import (
    UPDATABLE_FIELDS,
    DeliveryState,
    LoggedDelivery,
    State,
    Webhook,
    require_url,
)
from services.notification.webhooks.store import Webhooks
from services.runtime import caller, paging
from services.runtime.ids import new_id
from services.runtime.masks import fields_to_change

Context = grpc.aio.ServicerContext[Any, Any]


class WebhookService(webhook_pb2_grpc.WebhookServiceServicer):
    """See proto/notification/v1/webhook.proto."""

    def __init__(self, webhooks: Webhooks, deliveries: Deliveries, *, public: bool) -> None:
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._public = public

    async def CreateWebhook(self, request: webhook_pb2.CreateWebhookRequest, _: Context) -> webhook_pb2.Webhook:
        require_url(request.url, public=self._public)
        now, secret = datetime.now(UTC), signature.new_secret()
        types = tuple(request.event_types)
        user_id = caller.current().user_id
        webhook = Webhook(new_id("whk"), user_id, request.url, types, request.description, State.ENABLED, 1, now, now)
        await self._webhooks.add(webhook, secret)
        return _webhook(webhook, secret)

    async def GetWebhook(self, request: webhook_pb2.GetWebhookRequest, _: Context) -> webhook_pb2.Webhook:
        return _webhook(await self._webhooks.get(caller.current().user_id, request.webhook_id))

    async def ListWebhooks(
        self, request: webhook_pb2.ListWebhooksRequest, _: Context
    ) -> webhook_pb2.ListWebhooksResponse:
        user_id = caller.current().user_id
        page = paging.page(request.page_size, request.page_token, "webhooks", user_id)
        webhooks, token = page.cut(await self._webhooks.list_of(user_id, page), lambda webhook: webhook.id)
        return webhook_pb2.ListWebhooksResponse(webhooks=map(_webhook, webhooks), next_page_token=token)

    async def UpdateWebhook(self, request: webhook_pb2.UpdateWebhookRequest, _: Context) -> webhook_pb2.Webhook:
        fields = fields_to_change(request.update_mask.paths, request.webhook, UPDATABLE_FIELDS)
        if "url" in fields:
            require_url(request.webhook.url, public=self._public)

        def change(webhook: Webhook) -> Webhook:
            webhook.require_etag(request.webhook.etag)
            changes = {name: _READ[name](request.webhook, webhook) for name in fields}
            return webhook.with_changes(changes, datetime.now(UTC))

        return _webhook(await self._webhooks.update(caller.current().user_id, request.webhook_id, change))

    async def DeleteWebhook(self, request: webhook_pb2.DeleteWebhookRequest, _: Context) -> empty_pb2.Empty:
        await self._webhooks.delete(caller.current().user_id, request.webhook_id)
        return empty_pb2.Empty()

    async def RotateWebhookSecret(
        self, request: webhook_pb2.RotateWebhookSecretRequest, _: Context
    ) -> webhook_pb2.Webhook:
        secret, user_id = signature.new_secret(), caller.current().user_id
        return _webhook(await self._webhooks.rotate(user_id, request.webhook_id, secret, datetime.now(UTC)), secret)

    async def ListWebhookDeliveries(
        self, request: webhook_pb2.ListWebhookDeliveriesRequest, _: Context
    ) -> webhook_pb2.ListWebhookDeliveriesResponse:
        webhook = await self._webhooks.get(caller.current().user_id, request.webhook_id)
        page = paging.page(request.page_size, request.page_token, "deliveries", webhook.id, str(request.state))
        state = DeliveryState(request.state) if request.state else None
        deliveries, token = page.cut(await self._webhooks.log(webhook.id, state, page), lambda delivery: delivery.id)
        return webhook_pb2.ListWebhookDeliveriesResponse(deliveries=map(_delivery, deliveries), next_page_token=token)

    async def ReplayWebhookDelivery(
        self, request: webhook_pb2.ReplayWebhookDeliveryRequest, _: Context
    ) -> webhook_pb2.WebhookDelivery:
        user_id = caller.current().user_id
        delivery = await self._webhooks.replay(user_id, request.webhook_id, request.delivery_id)
        self._deliveries.added.set()
        return _delivery(delivery)


_READ: Mapping[str, Callable[[webhook_pb2.Webhook, Webhook], Any]] = {
    "url": lambda update, _: update.url,
    "event_types": lambda update, _: tuple(update.event_types),
    "description": lambda update, _: update.description,
    "state": lambda update, webhook: State(update.state) if update.state else webhook.state,
}


def _webhook(webhook: Webhook, secret: bytes = b"") -> webhook_pb2.Webhook:
    proto = webhook_pb2.Webhook(
        id=webhook.id,
        url=webhook.url,
        event_types=webhook.event_types,
        description=webhook.description,
        state=webhook_pb2.Webhook.State.ValueType(webhook.state.value),
        secret=signature.written(secret) if secret else "",
        etag=webhook.etag,
    )
    proto.create_time.FromDatetime(webhook.create_time)
    proto.update_time.FromDatetime(webhook.update_time)
    return proto


def _delivery(delivery: LoggedDelivery) -> webhook_pb2.WebhookDelivery:
    proto = webhook_pb2.WebhookDelivery(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        event_type=delivery.event_type,
        payment_id=delivery.payment_id,
        state=webhook_pb2.WebhookDelivery.State.ValueType(delivery.state.value),
        attempts=delivery.attempts,
        response_status=delivery.response_status,
        error=delivery.error,
    )
    proto.create_time.FromDatetime(delivery.create_time)
    if delivery.last_attempt_time:
        proto.last_attempt_time.FromDatetime(delivery.last_attempt_time)
    if delivery.next_attempt_time:
        proto.next_attempt_time.FromDatetime(delivery.next_attempt_time)
    return proto
