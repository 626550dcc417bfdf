"""What notification asks of user."""

import grpc
from user.v1 import user_pb2, user_pb2_grpc


class Users:
    """The user service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(channel)

    async def email(self, user_id: str) -> str | None:
        """Returns the address of an active user; None where there is no such user. It is neither stored nor logged."""
        response = await self._stub.BatchGetContacts(user_pb2.BatchGetContactsRequest(user_ids=[user_id]))
        return next((one.email for one in response.contacts), None)
