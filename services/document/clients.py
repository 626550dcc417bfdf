"""What document asks of user."""

from datetime import date

import grpc
from user.v1 import user_pb2, user_pb2_grpc

from services.document.verification.domain import Identity
from services.runtime.errors import NotFound, Unavailable


class IdentityUnknown(Unavailable):
    """The user service does not say who somebody is, for whatever reason: an older release cannot."""

    message = "The service cannot learn who a user is right now."


class OwnerNotFound(NotFound):
    """The user service does not know the user whose document is read."""

    message = "There is no user {user_id}."


class Users:
    """The user service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(channel)

    async def identity(self, user_id: str) -> Identity:
        """Returns who a user is. Raises IdentityUnknown and OwnerNotFound."""
        try:
            response = await self._stub.GetIdentity(user_pb2.GetIdentityRequest(user_id=user_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise OwnerNotFound(user_id=user_id) from error
            raise IdentityUnknown from error
        born = response.date_of_birth
        return Identity(response.display_name, date(born.year, born.month, born.day))
