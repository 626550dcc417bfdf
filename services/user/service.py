"""The servicers of users and sessions: proto to domain to proto."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any

import grpc
from google.protobuf import empty_pb2
from google.type import date_pb2
from user.v1 import user_pb2, user_pb2_grpc

from services.runtime import caller, paging
from services.runtime.errors import FieldViolation, InvalidRequest
from services.runtime.ids import new_id
from services.runtime.masks import fields_to_change
from services.user import domain, events
from services.user.authentication import Authentication
from services.user.domain import Profile, State, Tokens, User, in_order
from services.user.keys import KeyRing
from services.user.passwords.hashing import Passwords
from services.user.store import Sessions, Users

Context = grpc.aio.ServicerContext[Any, Any]


class UserService(user_pb2_grpc.UserServiceServicer):
    """See proto/user/v1/user.proto."""

    def __init__(self, users: Users, passwords: Passwords, countries: Collection[str]) -> None:
        self._users = users
        self._passwords = passwords
        self._countries = countries

    async def CreateUser(self, request: user_pb2.CreateUserRequest, _: Context) -> user_pb2.User:
        now, born = datetime.now(UTC), _date(request.date_of_birth)
        profile = Profile(request.display_name, request.country, born, request.address)
        profile = profile.checked(self._countries, now.date())
        user = User.new(new_id("usr"), request.email, profile, frozenset({"customer"}), now)
        await self._users.add(user, await self._passwords.hash(request.password))
        return _user(user)

    async def GetUser(self, request: user_pb2.GetUserRequest, _: Context) -> user_pb2.User:
        who = caller.current()
        user = await self._users.get(who.resolve(request.user_id))
        who.require_owner(user.id, f"User {user.id}", "officer", "admin")
        return _user(user)

    async def UpdateUser(self, request: user_pb2.UpdateUserRequest, _: Context) -> user_pb2.User:
        who = caller.current()
        changeable = domain.PROFILE_FIELDS | domain.ADMIN_FIELDS
        fields = fields_to_change(request.update_mask.paths, request.user, changeable, star=domain.PROFILE_FIELDS)

        def change(user: User) -> User:
            who.require_owner(user.id, f"User {user.id}", "admin")
            domain.require_may_change(fields, admin=who.has("admin"))
            user.require_etag(request.user.etag)
            changes = {name: _READ[name](request.user) for name in fields}
            return user.with_changes(changes, self._countries, datetime.now(UTC))

        return _user(await self._users.update(who.resolve(request.user_id), change))

    async def ListUsers(self, request: user_pb2.ListUsersRequest, _: Context) -> user_pb2.ListUsersResponse:
        page = paging.page(request.page_size, request.page_token, "users")
        users, token = page.cut(await self._users.list_all(page), lambda user: user.id)
        return user_pb2.ListUsersResponse(users=map(_user, users), next_page_token=token)

    async def BatchGetUsers(self, request: user_pb2.BatchGetUsersRequest, _: Context) -> user_pb2.BatchGetUsersResponse:
        users = await self._users.get_all(request.user_ids)
        return user_pb2.BatchGetUsersResponse(users=map(_summary, users))

    async def BatchGetContacts(
        self, request: user_pb2.BatchGetContactsRequest, _: Context
    ) -> user_pb2.BatchGetContactsResponse:
        active = (user for user in await self._users.get_all(request.user_ids) if user.state is State.ACTIVE)
        return user_pb2.BatchGetContactsResponse(contacts=map(_contact, active))

    async def GetIdentity(self, request: user_pb2.GetIdentityRequest, _: Context) -> user_pb2.Identity:
        return _identity(await self._users.get(request.user_id))


class SessionService(user_pb2_grpc.SessionServiceServicer):
    """See proto/user/v1/user.proto."""

    def __init__(self, authentication: Authentication, sessions: Sessions, keys: KeyRing) -> None:
        self._authentication = authentication
        self._sessions = sessions
        self._keys = keys

    async def CreateSession(self, request: user_pb2.CreateSessionRequest, _: Context) -> user_pb2.Session:
        return _session(await self._authentication.log_in(request.email, request.password))

    async def RefreshSession(self, request: user_pb2.RefreshSessionRequest, _: Context) -> user_pb2.Session:
        return _session(await self._authentication.refresh(request.refresh_token))

    async def DeleteSession(self, _request: user_pb2.DeleteSessionRequest, _: Context) -> empty_pb2.Empty:
        await self._sessions.end(caller.current().session_id)
        return empty_pb2.Empty()

    async def GetJwks(self, _request: user_pb2.GetJwksRequest, _: Context) -> user_pb2.JsonWebKeySet:
        keys = (
            user_pb2.JsonWebKey(kty="EC", crv="P-256", x=key.x, y=key.y, kid=key.kid, alg="ES256", use="sig")
            for key in self._keys.published()
        )
        return user_pb2.JsonWebKeySet(keys=keys)


def _date(born: date_pb2.Date) -> date:
    return domain.whole_date(born.year, born.month, born.day)


def _state(user: user_pb2.User) -> State:
    if user.state == user_pb2.User.STATE_UNSPECIFIED:
        raise InvalidRequest(FieldViolation("state", "must be ACTIVE or SUSPENDED"))
    return State(user.state)


_READ: Mapping[str, Callable[[user_pb2.User], Any]] = {
    "display_name": lambda user: user.display_name,
    "country": lambda user: user.country,
    "date_of_birth": lambda user: _date(user.date_of_birth),
    "address": lambda user: user.address,
    "roles": lambda user: domain.known_roles(user.roles),
    "state": _state,
}


def _user(user: User) -> user_pb2.User:
    proto = user_pb2.User(
        id=user.id,
        email=user.email,
        display_name=user.profile.display_name,
        country=user.profile.country,
        date_of_birth=events.date_of_birth(user),
        address=user.profile.address,
        roles=in_order(user.roles),
        state=user_pb2.User.State.ValueType(user.state.value),
        etag=user.etag,
    )
    proto.create_time.FromDatetime(user.create_time)
    proto.update_time.FromDatetime(user.update_time)
    return proto


def _summary(user: User) -> user_pb2.UserSummary:
    return user_pb2.UserSummary(
        id=user.id,
        display_name=user.profile.display_name,
        country=user.profile.country,
        state=user_pb2.User.State.ValueType(user.state.value),
    )


def _contact(user: User) -> user_pb2.Contact:
    return user_pb2.Contact(user_id=user.id, email=user.email)


def _identity(user: User) -> user_pb2.Identity:
    return user_pb2.Identity(
        user_id=user.id,
        display_name=user.profile.display_name,
        date_of_birth=events.date_of_birth(user),
    )


def _session(tokens: Tokens) -> user_pb2.Session:
    return user_pb2.Session(
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        token_type="Bearer",  # noqa: S106  # no secret: the scheme (RFC 6750)
        expires_in=int(domain.ACCESS_TOKEN_LIFETIME.total_seconds()),
    )
