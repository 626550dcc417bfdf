"""What document asks of user."""

from datetime import date

import grpc
from user.v1 import user_pb2, user_pb2_grpc

from services.document.verification.domain import Identity, IdentityRefused
from services.runtime.errors import NotFound, Unavailable

_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNIMPLEMENTED,  # by an older release
)


class IdentityUnknown(Unavailable):
    """The user service says of nobody who they are: it is away, or an older release."""

    message = "The service cannot learn who a user is right now."


class OwnerNotFound(NotFound):
    """The user service does not know the user whose document is read."""

    message = "There is no user {user_id}."


class Users:
    """The user service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(channel)

    async def identity(self, user_id: str) -> Identity:
        """Returns who a user is. Raises IdentityUnknown, OwnerNotFound, and IdentityRefused for any other reason."""
        try:
            response = await self._stub.GetIdentity(user_pb2.GetIdentityRequest(user_id=user_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise OwnerNotFound(user_id=user_id) from error
            if error.code() in _AWAY:
                raise IdentityUnknown from error
            raise IdentityRefused(error.code().name) from error
        born = response.date_of_birth
        return Identity(response.display_name, date(born.year, born.month, born.day))
