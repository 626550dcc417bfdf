"""The servicer that the edge asks about every request: Check of Envoy's external authorization protocol."""

import base64
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import grpc
import structlog
from ext_authz import external_auth_pb2, external_auth_pb2_grpc
from google.protobuf import json_format

from authz.policy import Policy, RoleRequired, require_role
from authz.tokens import InvalidToken, TokenAmbiguous, TokenExpired, TokenRequired, Tokens, User
from services.runtime import status
from services.runtime.contract import EDGE, Method
from services.runtime.errors import Error
from services.runtime.interceptors import peer_name

Context = grpc.aio.ServicerContext[Any, Any]
Request = external_auth_pb2.AttributeContext.HttpRequest

_AUTHORIZATION = "authorization"
_ACCESS_TOKEN = "access_token"  # noqa: S105  # the query parameter's name (RFC 6750, 2.3)
_IDENTITY = ("x-user-id", "x-user-roles", "x-user-session")
_RPC = "x-user-rpc"

_HTTP_STATUS = {7: HTTPStatus.FORBIDDEN, 14: HTTPStatus.SERVICE_UNAVAILABLE, 16: HTTPStatus.UNAUTHORIZED}
# RFC 6750, 3.1. No token, no error: the challenge alone says what is needed.
_OAUTH_ERROR: Mapping[type[Error], str] = {
    TokenRequired: "",
    TokenAmbiguous: "invalid_request",
    InvalidToken: "invalid_token",
    TokenExpired: "invalid_token",
    RoleRequired: "insufficient_scope",
}

_log = structlog.get_logger()


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):
    """Grants an RPC to a user, or denies it in the shape of every other error."""

    def __init__(self, policy: Policy, tokens: Tokens) -> None:
        self._policy = policy
        self._tokens = tokens

    async def Check(self, request: external_auth_pb2.CheckRequest, context: Context) -> external_auth_pb2.CheckResponse:
        if peer_name(context) != EDGE:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "Only the edge may ask.")
        http, rpc = request.attributes.request.http, request.attributes.context_extensions["rpc"]
        try:
            method = self._policy.terms(rpc)
            if method.access == "public":
                return _granted_to_anybody(method)
            user = await self._tokens.verify(_token(http, method))
            require_role(method, user.roles)
            return _granted_to(user, method)
        except Error as error:
            _log.info("denied", rpc=rpc, reason=error.reason)
            return _denied(error, grpc_client=_header(http, "content-type").startswith("application/grpc"))


def _token(http: Request, method: Method) -> str:
    """Returns the one token of a request. Raises TokenRequired or TokenAmbiguous."""
    sent = [one.raw_value.decode("latin-1") for one in http.header_map.headers if one.key == _AUTHORIZATION]
    in_query = _query_tokens(http.path) if method.query_token else []
    if not sent and not in_query:
        raise TokenRequired
    if len(sent) + len(in_query) > 1:
        raise TokenAmbiguous
    if in_query:
        return in_query[0]
    scheme, _, token = sent[0].partition(" ")
    if scheme.lower() != "bearer":
        raise TokenRequired
    return token.strip(" ")


def _query_tokens(path: str) -> list[str]:
    return [value for name, value in parse_qsl(urlsplit(path).query, keep_blank_values=True) if name == _ACCESS_TOKEN]


def _header(http: Request, name: str) -> str:
    return next((one.raw_value.decode("latin-1") for one in http.header_map.headers if one.key == name), "")


def _granted_to_anybody(method: Method) -> external_auth_pb2.CheckResponse:
    ok = external_auth_pb2.OkHttpResponse(
        headers=[_option(_RPC, method.rpc)], headers_to_remove=[_AUTHORIZATION, *_IDENTITY]
    )
    return external_auth_pb2.CheckResponse(ok_response=ok)


def _granted_to(user: User, method: Method) -> external_auth_pb2.CheckResponse:
    values = (user.id, ",".join(sorted(user.roles)), user.session_id)
    headers = [_option(_RPC, method.rpc), *map(_option, _IDENTITY, values)]
    ok = external_auth_pb2.OkHttpResponse(headers=headers, headers_to_remove=[_AUTHORIZATION])
    if method.query_token:
        ok.query_parameters_to_remove.append(_ACCESS_TOKEN)
    return external_auth_pb2.CheckResponse(ok_response=ok)


def _denied(error: Error, *, grpc_client: bool) -> external_auth_pb2.CheckResponse:
    """Returns a denial as the client is to see it. For gRPC clients Envoy makes a status, the body its message."""
    proto = status.to_proto(error)
    denied = external_auth_pb2.DeniedHttpResponse(status=external_auth_pb2.HttpStatus(code=_HTTP_STATUS[error.code]))
    if type(error) in _OAUTH_ERROR:
        denied.headers.append(_option("www-authenticate", _challenge(error)))
    if error.retry_after is not None:
        denied.headers.append(_option("retry-after", str(max(1, round(error.retry_after)))))
    if grpc_client:
        denied.body = proto.message
        details = base64.b64encode(proto.SerializeToString()).rstrip(b"=").decode()
        denied.headers.append(_option(status.DETAILS, details))
    else:
        denied.body = json_format.MessageToJson(proto, indent=None)
        denied.headers.append(_option("content-type", "application/json"))
    response = external_auth_pb2.CheckResponse(denied_response=denied)
    response.status.code = error.code
    return response


def _challenge(error: Error) -> str:
    oauth_error = _OAUTH_ERROR[type(error)]
    return f'Bearer error="{oauth_error}", error_description="{error}"' if oauth_error else "Bearer"


def _option(name: str, value: str) -> external_auth_pb2.HeaderValueOption:
    return external_auth_pb2.HeaderValueOption(header=external_auth_pb2.HeaderValue(key=name, value=value))
