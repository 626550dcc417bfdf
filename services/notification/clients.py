"""What notification asks of user."""

import grpc
from user.v1 import user_pb2, user_pb2_grpc

from services.notification.domain import Contact


class Users:
    """The user service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(channel)

    async def contact(self, user_id: str) -> Contact | None:
        """Returns where an active user can be written to; None where there is no such user."""
        response = await self._stub.BatchGetContacts(user_pb2.BatchGetContactsRequest(user_ids=[user_id]))
        return next((Contact(one.display_name, one.email) for one in response.contacts), None)
