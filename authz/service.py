"""The servicer that the edge asks about every request: Check of Envoy's external authorization protocol."""

from typing import Any

import grpc
import structlog
from ext_authz import external_auth_pb2, external_auth_pb2_grpc

from authz.answers import Denials, granted_to, granted_to_anybody
from authz.api_keys import ApiKeys
from authz.credentials import Request, credential, headers
from authz.policy import Policy, require_person, require_role
from authz.requests import Requests
from authz.tokens import Tokens, User
from services.runtime.contract import EDGE, Method
from services.runtime.errors import Error
from services.runtime.peers import peer_name

Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger()


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):
    """Grants an RPC to a user, or denies it in the shape of every other error."""

    def __init__(self, policy: Policy, tokens: Tokens, api_keys: ApiKeys, requests: Requests) -> None:
        self._policy = policy
        self._tokens = tokens
        self._api_keys = api_keys
        self._requests = requests
        self._denials = Denials()

    async def Check(self, request: external_auth_pb2.CheckRequest, context: Context) -> external_auth_pb2.CheckResponse:
        if peer_name(context) != EDGE:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "Only the edge may ask.")
        http, extensions = request.attributes.request.http, request.attributes.context_extensions
        try:
            method = self._policy.terms(extensions["rpc"])
            user = await self._user(http, method) if method.access == "token" else None
            self._requests.require_strict(method, extensions.get("body"), http)
            return granted_to(user, method) if user else granted_to_anybody(method)
        except Error as error:
            _log.info("denied", rpc=extensions["rpc"], reason=error.reason)
            content_type = "".join(headers(http, "content-type")[:1])
            return self._denials.answer(error, grpc_client=content_type.startswith("application/grpc"))

    async def _user(self, http: Request, method: Method) -> User:
        """Returns who may call the RPC."""
        sent = credential(http, method)
        user = await (self._api_keys if sent.is_api_key else self._tokens).verify(sent.text)
        require_person(method, is_person=user.is_person)
        require_role(method, user.roles)
        return user
