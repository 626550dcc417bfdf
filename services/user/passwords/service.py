"""The servicer of passwords."""

from typing import Any

import grpc
from google.protobuf import empty_pb2
from user.v1 import password_pb2, password_pb2_grpc

from services.runtime import caller
from services.runtime.errors import FieldViolation, InvalidRequest
from services.user.domain import text
from services.user.passwords import domain
from services.user.passwords.codes import Codes
from services.user.passwords.domain import InvalidResetCode, WrongPassword
from services.user.passwords.hashing import Passwords
from services.user.passwords.store import PasswordsOfUsers
from services.user.passwords.throttling import Throttle
from services.user.store import Users

Context = grpc.aio.ServicerContext[Any, Any]


class PasswordService(password_pb2_grpc.PasswordServiceServicer):
    """See proto/user/v1/password.proto."""

    def __init__(
        self, users: Users, store: PasswordsOfUsers, passwords: Passwords, throttle: Throttle, codes: Codes
    ) -> None:
        self._users = users
        self._store = store
        self._passwords = passwords
        self._throttle = throttle
        self._codes = codes

    async def ChangePassword(self, request: password_pb2.ChangePasswordRequest, _: Context) -> empty_pb2.Empty:
        who = caller.current()
        credentials = await self._users.credentials_of(who.user_id)
        async with self._throttle.attempt(domain.changes_of(who.user_id), who.address):
            if not await self._passwords.matches(request.current_password, credentials.password_hash):
                raise WrongPassword
        _require_new(same=request.new_password == request.current_password)
        password_hash = await self._passwords.hash(request.new_password)
        await self._store.change(credentials, password_hash, who.session_id)
        return empty_pb2.Empty()

    async def RequestPasswordReset(
        self, request: password_pb2.RequestPasswordResetRequest, _: Context
    ) -> empty_pb2.Empty:
        email = text(request.email, "email")
        if await self._throttle.may_mail(email, caller.current().address):
            await self._store.ask(email)
        return empty_pb2.Empty()

    async def ResetPassword(self, request: password_pb2.ResetPasswordRequest, _: Context) -> empty_pb2.Empty:
        async with self._throttle.attempt_from(caller.current().address):
            reset = await self._store.guess(text(request.email, "email"))
            if not self._codes.match(request.code, reset):
                raise InvalidResetCode
        credentials = await self._users.credentials_of(reset.user_id)
        same = await self._passwords.matches(request.new_password, credentials.password_hash)
        if same:
            await self._store.take_back(reset)
        _require_new(same=same)
        password_hash = await self._passwords.hash(request.new_password)
        await self._store.reset(reset, credentials, password_hash)
        return empty_pb2.Empty()

    async def GetPasswordReset(
        self, request: password_pb2.GetPasswordResetRequest, _: Context
    ) -> password_pb2.PasswordReset:
        reset = await self._store.get_reset(request.reset_id)
        proto = password_pb2.PasswordReset(user_id=reset.user_id, email=reset.email, code=self._codes.of(reset))
        proto.expire_time.FromDatetime(reset.expire_time)
        return proto


def _require_new(*, same: bool) -> None:
    if same:
        raise InvalidRequest(FieldViolation("newPassword", "must not be the one in force"))
