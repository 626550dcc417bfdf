"""The servicer of API keys: proto to domain to proto."""

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf import empty_pb2
from user.v1 import api_key_pb2, api_key_pb2_grpc

from services.runtime import caller, paging
from services.runtime.errors import FieldViolation, InvalidRequest
from services.runtime.ids import new_id
from services.user.api_keys.domain import ApiKey, expire_time
from services.user.api_keys.store import ApiKeys
from services.user.domain import in_order, known_roles, text

Context = grpc.aio.ServicerContext[Any, Any]

_PREFIX = "dbk_"
"""By which scanners find a key that leaked."""
_RANDOM_BYTES = 32


class ApiKeyService(api_key_pb2_grpc.ApiKeyServiceServicer):
    """See proto/user/v1/api_key.proto."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def CreateApiKey(self, request: api_key_pb2.CreateApiKeyRequest, _: Context) -> api_key_pb2.ApiKey:
        now, who = datetime.now(UTC), caller.current()
        display_name = text(request.display_name, "displayName")
        if not display_name:
            raise InvalidRequest(FieldViolation("displayName", "must not be empty"))
        roles = known_roles(request.roles or ("customer",))
        key = ApiKey(new_id("key"), who.user_id, display_name, roles, now, expire_time(_asked(request), now))
        secret = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        await self._keys.add(key, hashlib.sha256(secret.encode()).digest(), who.roles, who.session_id)
        return _key(key, secret)

    async def GetApiKey(self, request: api_key_pb2.GetApiKeyRequest, _: Context) -> api_key_pb2.ApiKey:
        return _key(await self._keys.get(caller.current().user_id, request.api_key_id))

    async def ListApiKeys(self, request: api_key_pb2.ListApiKeysRequest, _: Context) -> api_key_pb2.ListApiKeysResponse:
        user_id = caller.current().user_id
        page = paging.page(request.page_size, request.page_token, "apiKeys", user_id)
        keys, token = page.cut(await self._keys.list_of(user_id, page), lambda key: key.id)
        return api_key_pb2.ListApiKeysResponse(api_keys=map(_key, keys), next_page_token=token)

    async def RevokeApiKey(self, request: api_key_pb2.RevokeApiKeyRequest, _: Context) -> empty_pb2.Empty:
        await self._keys.revoke(caller.current().user_id, request.api_key_id)
        return empty_pb2.Empty()

    async def ResolveApiKey(
        self, request: api_key_pb2.ResolveApiKeyRequest, _: Context
    ) -> api_key_pb2.ResolveApiKeyResponse:
        key = await self._keys.resolve(request.sha256)
        resolved = api_key_pb2.ResolveApiKeyResponse(api_key_id=key.id, user_id=key.user_id, roles=in_order(key.roles))
        resolved.expire_time.FromDatetime(key.expire_time)
        return resolved


def _asked(request: api_key_pb2.CreateApiKeyRequest) -> float | None:
    """When the key is to expire, in seconds since 1970."""
    if not request.HasField("expire_time"):
        return None
    return request.expire_time.seconds + request.expire_time.nanos / 1e9


def _key(key: ApiKey, secret: str = "") -> api_key_pb2.ApiKey:
    proto = api_key_pb2.ApiKey(
        id=key.id,
        display_name=key.display_name,
        roles=in_order(key.roles),
        key=secret,
    )
    proto.create_time.FromDatetime(key.create_time)
    proto.expire_time.FromDatetime(key.expire_time)
    if key.last_use_time:
        proto.last_use_time.FromDatetime(key.last_use_time)
    return proto
