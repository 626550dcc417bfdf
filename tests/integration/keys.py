"""What tests do with API keys, in a house of tests.integration.users."""

import hashlib
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from user.v1 import api_key_pb2, user_pb2

from tests.integration.users import House

ADMIN = ("usr_admin", "admin")


async def make(
    house: House, user: user_pb2.User, *held: str, session_id: str = "", **fields: Any
) -> api_key_pb2.ApiKey:
    """Makes a key for a user who holds these roles, as far as authz knows."""
    request = api_key_pb2.CreateApiKeyRequest(**{"display_name": "cash desk", **fields})
    return await house.keys_as(user.id, *(held or ("customer",)), session_id=session_id).CreateApiKey(request)


async def resolve(house: House, text: str) -> api_key_pb2.ResolveApiKeyResponse:
    """Asks as authz does."""
    sha256 = hashlib.sha256(text.encode()).digest()
    return await house.asked_by_authz().ResolveApiKey(api_key_pb2.ResolveApiKeyRequest(sha256=sha256))


async def revoke(house: House, user: user_pb2.User, key_id: str) -> None:
    await house.keys_as(user.id).RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key_id=key_id))


async def get(house: House, user: user_pb2.User, key_id: str) -> api_key_pb2.ApiKey:
    return await house.keys_as(user.id).GetApiKey(api_key_pb2.GetApiKeyRequest(api_key_id=key_id))


async def list_of(house: House, user: user_pb2.User, **page: Any) -> api_key_pb2.ListApiKeysResponse:
    return await house.keys_as(user.id).ListApiKeys(api_key_pb2.ListApiKeysRequest(**page))


async def give_roles(house: House, user: user_pb2.User, *roles: str) -> None:
    await house.update(user, "roles", by=ADMIN, user_id=user.id, roles=roles)


async def expire(house: House, *keys: api_key_pb2.ApiKey) -> None:
    """Lets the time of keys pass."""
    await house.database.execute("UPDATE api_keys SET expire_time = now() WHERE id = ANY($1)", [key.id for key in keys])


def at(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
