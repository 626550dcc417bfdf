"""With what a request says who it is from: one access token or one API key, never two of anything."""

from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from ext_authz import external_auth_pb2

from services.runtime.contract import Method
from services.runtime.errors import Unauthenticated

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
ACCESS_TOKEN = "access_token"  # noqa: S105  # the query parameter's name (RFC 6750, 2.3)

Request = external_auth_pb2.AttributeContext.HttpRequest


class TokenRequired(Unauthenticated):
    """The RPC is for users, and there is neither an access token nor an API key."""

    message = "This needs an access token: send it as Authorization: Bearer."


class TokenAmbiguous(Unauthenticated):
    """There is more than one access token or API key."""

    message = "There is more than one credential: send one access token or one API key."


class Credential(NamedTuple):
    """What a request was sent with."""

    text: str
    is_api_key: bool


def credential(http: Request, method: Method) -> Credential:
    """Returns the one credential of a request. Raises TokenRequired or TokenAmbiguous."""
    authorizations, api_keys = headers(http, AUTHORIZATION), headers(http, API_KEY)
    in_query = _query_tokens(http.path) if method.query_token else []
    match authorizations, api_keys, in_query:
        case [authorization], [], []:
            if "," in authorization:  # so Envoy joins what was sent twice
                raise TokenAmbiguous
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise TokenRequired
            return Credential(token.strip(" "), is_api_key=False)
        case [], [api_key], []:
            return Credential(api_key, is_api_key=True)
        case [], [], [token]:
            return Credential(token, is_api_key=False)
        case [], [], []:
            raise TokenRequired
    raise TokenAmbiguous


def headers(http: Request, name: str) -> list[str]:
    """Returns all values of a header, as often as it was sent."""
    return [one.raw_value.decode("latin-1") for one in http.header_map.headers if one.key == name]


def _query_tokens(path: str) -> list[str]:
    return [value for name, value in parse_qsl(urlsplit(path).query, keep_blank_values=True) if name == ACCESS_TOKEN]
