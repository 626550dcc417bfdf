"""What the edge is told to do: pass a request on with what backends believe, or answer in the shape of every error."""

import base64
from collections.abc import Mapping

from ext_authz import external_auth_pb2
from google.protobuf import json_format

from authz.credentials import ACCESS_TOKEN, API_KEY, AUTHORIZATION, TokenAmbiguous, TokenRequired
from authz.policy import RoleRequired
from authz.tokens import InvalidToken, TokenExpired, User
from services.runtime import status
from services.runtime.contract import Method
from services.runtime.errors import Error
from services.runtime.revocations import SessionEnded

_IDENTITY = ("x-user-id", "x-user-roles", "x-user-session")
_RPC = "x-user-rpc"
_CREDENTIALS = (AUTHORIZATION, API_KEY)
_UNAUTHENTICATED = 16
_MOST_GIVEN = 1000

# As Envoy's transcoder turns a code into an HTTP status.
_HTTP_STATUS = {3: 400, 7: 403, 8: 429, 14: 503, 16: 401}
# RFC 6750, 3.1. Of others that nobody knows the challenge alone says what is needed.
_OAUTH_ERROR: Mapping[type[Error], str] = {
    TokenRequired: "",
    TokenAmbiguous: "invalid_request",
    InvalidToken: "invalid_token",
    TokenExpired: "invalid_token",
    SessionEnded: "invalid_token",
    RoleRequired: "insufficient_scope",
}


def granted_to_anybody(method: Method) -> external_auth_pb2.CheckResponse:
    """Passes a request on as nobody's."""
    ok = external_auth_pb2.OkHttpResponse(
        headers=[_option(_RPC, method.rpc)], headers_to_remove=[*_CREDENTIALS, *_IDENTITY]
    )
    return external_auth_pb2.CheckResponse(ok_response=ok)


def granted_to(user: User, method: Method) -> external_auth_pb2.CheckResponse:
    """Passes a request on as a user's, without the credential."""
    values = (user.id, ",".join(sorted(user.roles)), user.session_id)
    headers = [_option(_RPC, method.rpc), *map(_option, _IDENTITY, values)]
    ok = external_auth_pb2.OkHttpResponse(headers=headers, headers_to_remove=_CREDENTIALS)
    if method.query_token:
        ok.query_parameters_to_remove.append(ACCESS_TOKEN)
    return external_auth_pb2.CheckResponse(ok_response=ok)


class Denials:
    """Answers to those who are not let in. Most were given before: a flood of bad tokens must cost little."""

    def __init__(self) -> None:
        self._given: dict[tuple[type[Error], str, bool], external_auth_pb2.CheckResponse] = {}

    def answer(self, error: Error, *, grpc_client: bool) -> external_auth_pb2.CheckResponse:
        """Answers as the client is to see it. For gRPC clients Envoy makes a status, the body its message."""
        if error.fields or error.preconditions:  # which are about what this client sent
            return _denied(error, grpc_client=grpc_client)
        kind = type(error), str(error), grpc_client
        given = self._given.get(kind)
        if given is None:
            given = _denied(error, grpc_client=grpc_client)
            if len(self._given) < _MOST_GIVEN:
                self._given[kind] = given
        return given


def _denied(error: Error, *, grpc_client: bool) -> external_auth_pb2.CheckResponse:
    proto = status.to_proto(error)
    http_status = external_auth_pb2.HttpStatus(code=error.http_status or _HTTP_STATUS[error.code])
    answer = external_auth_pb2.DeniedHttpResponse(status=http_status)
    if error.code == _UNAUTHENTICATED or type(error) in _OAUTH_ERROR:
        answer.headers.append(_option("www-authenticate", _challenge(error)))
    if error.retry_after is not None:
        answer.headers.append(_option("retry-after", str(max(1, round(error.retry_after)))))
    answer.headers.extend(_option(name, value) for name, value in error.headers)
    if grpc_client:
        answer.body = proto.message
        details = base64.b64encode(proto.SerializeToString()).rstrip(b"=").decode()
        answer.headers.append(_option(status.DETAILS, details))
    else:
        answer.body = json_format.MessageToJson(proto, indent=None)
        answer.headers.append(_option("content-type", "application/json"))
    response = external_auth_pb2.CheckResponse(denied_response=answer)
    response.status.code = error.code
    return response


def _challenge(error: Error) -> str:
    oauth_error = _OAUTH_ERROR.get(type(error))
    return f'Bearer error="{oauth_error}", error_description="{error}"' if oauth_error else "Bearer"


def _option(name: str, value: str) -> external_auth_pb2.HeaderValueOption:
    return external_auth_pb2.HeaderValueOption(header=external_auth_pb2.HeaderValue(key=name, value=value))
