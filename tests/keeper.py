"""A hand-written keeper of API keys: what the user service answers authz."""

import asyncio
import time
from collections.abc import Callable
from hashlib import sha256

import grpc
from user.v1 import api_key_pb2

KEY = "dbk_" + "k" * 43
PROGRAM, OWNER = "key_1", "usr_1"


class Away(grpc.aio.AioRpcError):
    """The user service cannot be reached, or says no."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata())


class Keeper:
    """Knows KEY, until it is revoked."""

    def __init__(self) -> None:
        self.asked = 0
        self.roles = ["customer"]
        self.expires = time.time() + 3600
        self.revoked = False
        self.away = False
        self.before_answer: Callable[[], object] = lambda: None
        """What happens between the answer's making and its arrival."""
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def resolve(self, request: api_key_pb2.ResolveApiKeyRequest) -> api_key_pb2.ResolveApiKeyResponse:
        self.asked += 1
        if self.away:
            raise Away
        known = request.sha256 == sha256(KEY.encode()).digest() and not self.revoked
        answer = api_key_pb2.ResolveApiKeyResponse(api_key_id=PROGRAM, user_id=OWNER, roles=self.roles)
        answer.expire_time.FromNanoseconds(int(self.expires * 1e9))
        self.before_answer()
        await self.go_on.wait()
        if not known:
            raise Away(grpc.StatusCode.NOT_FOUND)
        return answer
