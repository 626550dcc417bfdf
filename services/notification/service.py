"""The servicer of notifications and preferences: proto to domain to proto."""

from datetime import UTC, datetime
from typing import Any

import grpc
from notification.v1 import notification_pb2, notification_pb2_grpc

from services.notification.domain import PREFERENCES, Notification, Preferences
from services.notification.store import Notifications, PreferencesOfUsers
from services.runtime import caller, paging
from services.runtime.masks import fields_to_change

Context = grpc.aio.ServicerContext[Any, Any]


class NotificationService(notification_pb2_grpc.NotificationServiceServicer):
    """See proto/notification/v1/notification.proto."""

    def __init__(self, notifications: Notifications, preferences: PreferencesOfUsers) -> None:
        self._notifications = notifications
        self._preferences = preferences

    async def ListNotifications(
        self, request: notification_pb2.ListNotificationsRequest, _: Context
    ) -> notification_pb2.ListNotificationsResponse:
        user_id = caller.current().user_id
        which = ["unread"] if request.unread_only else []
        page = paging.page(request.page_size, request.page_token, "notifications", user_id, *which)
        rows = await self._notifications.list_of(user_id, page, unread_only=request.unread_only)
        notifications, token = page.cut(rows, lambda notification: notification.id)
        return notification_pb2.ListNotificationsResponse(
            notifications=map(_notification, notifications), next_page_token=token
        )

    async def ReadNotification(
        self, request: notification_pb2.ReadNotificationRequest, _: Context
    ) -> notification_pb2.Notification:
        return _notification(await self._notifications.read(caller.current().user_id, request.notification_id))

    async def ReadAllNotifications(
        self, _request: notification_pb2.ReadAllNotificationsRequest, _: Context
    ) -> notification_pb2.UnreadCount:
        return _unread_count(await self._notifications.read_all(caller.current().user_id))

    async def GetUnreadCount(
        self, _request: notification_pb2.GetUnreadCountRequest, _: Context
    ) -> notification_pb2.UnreadCount:
        return _unread_count(await self._notifications.unread(caller.current().user_id))

    async def GetPreferences(
        self, _request: notification_pb2.GetPreferencesRequest, _: Context
    ) -> notification_pb2.Preferences:
        return _preferences(await self._preferences.get(caller.current().user_id))

    async def UpdatePreferences(
        self, request: notification_pb2.UpdatePreferencesRequest, _: Context
    ) -> notification_pb2.Preferences:
        fields = fields_to_change(request.update_mask.paths, request.preferences, PREFERENCES)
        given = {field.name: value for field, value in request.preferences.ListFields()}
        changes = {name: given.get(name, getattr(Preferences(), name)) for name in fields}  # unset: the default again

        def change(preferences: Preferences) -> Preferences:
            preferences.require_etag(request.preferences.etag)
            return preferences.with_changes(changes, datetime.now(UTC))

        return _preferences(await self._preferences.update(caller.current().user_id, change))


def _notification(notification: Notification) -> notification_pb2.Notification:
    proto = notification_pb2.Notification(
        id=notification.id,
        kind=notification.kind,
        text=notification.text,
        payment_id=notification.payment_id,
        document_id=notification.document_id,
    )
    proto.create_time.FromDatetime(notification.create_time)
    if notification.read_time is not None:
        proto.read_time.FromDatetime(notification.read_time)
    return proto


def _unread_count(count: int) -> notification_pb2.UnreadCount:
    return notification_pb2.UnreadCount(unread_count=count)


def _preferences(preferences: Preferences) -> notification_pb2.Preferences:
    proto = notification_pb2.Preferences(
        etag=preferences.etag, **{name: getattr(preferences, name) for name in PREFERENCES}
    )
    if preferences.update_time is not None:
        proto.update_time.FromDatetime(preferences.update_time)
    return proto
