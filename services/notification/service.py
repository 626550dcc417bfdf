"""The servicer of notifications: proto to domain to proto."""

from typing import Any

import grpc
from notification.v1 import notification_pb2, notification_pb2_grpc

from services.notification.domain import Notification
from services.notification.store import Notifications
from services.runtime import caller, paging

Context = grpc.aio.ServicerContext[Any, Any]


class NotificationService(notification_pb2_grpc.NotificationServiceServicer):
    """See proto/notification/v1/notification.proto."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def ListNotifications(
        self, request: notification_pb2.ListNotificationsRequest, _: Context
    ) -> notification_pb2.ListNotificationsResponse:
        user_id = caller.current().user_id
        page = paging.page(request.page_size, request.page_token, "notifications", user_id)
        rows = await self._notifications.list_of(user_id, page)
        notifications, token = page.cut(rows, lambda notification: notification.id)
        return notification_pb2.ListNotificationsResponse(
            notifications=map(_notification, notifications), next_page_token=token
        )


def _notification(notification: Notification) -> notification_pb2.Notification:
    proto = notification_pb2.Notification(
        id=notification.id,
        kind=notification.kind,
        text=notification.text,
        payment_id=notification.payment_id,
    )
    proto.create_time.FromDatetime(notification.create_time)
    return proto
