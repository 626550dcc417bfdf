"""What notification asks of user."""

from datetime import UTC

import grpc
from user.v1 import password_pb2, password_pb2_grpc, user_pb2, user_pb2_grpc

from services.notification.delivery.domain import PasswordReset


class Users:
    """The user service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(channel)
        self._passwords: password_pb2_grpc.PasswordServiceAsyncStub = password_pb2_grpc.PasswordServiceStub(channel)

    async def email(self, user_id: str) -> str | None:
        """Returns the address of an active user; None where there is no such user. It is neither stored nor logged."""
        response = await self._stub.BatchGetContacts(user_pb2.BatchGetContactsRequest(user_ids=[user_id]))
        return next((one.email for one in response.contacts), None)

    async def password_reset(self, reset_id: str) -> PasswordReset | None:
        """Returns a reset; None where it does not wait for its code any more. It is neither stored nor logged."""
        request = password_pb2.GetPasswordResetRequest(reset_id=reset_id)
        try:
            reset = await self._passwords.GetPasswordReset(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return PasswordReset(reset.email, reset.code, reset.expire_time.ToDatetime(UTC))
