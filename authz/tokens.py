"""Who they are: access tokens as JWTs (RFC 9068) signed with ES256, checked by the book (RFC 8725).

PyJWT checks the signature; what it is lenient about is refused before (canonical encoding, duplicate members, headers
that nobody needs), and the claims are read once, strictly.
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from jwt import InvalidTokenError, PyJWS

from authz.jwks import Keys
from authz.strict import base64url, json_object
from services.runtime.errors import Unauthenticated

LARGEST_TOKEN = 4096
LEEWAY_SECONDS = 5.0
"""How far the issuer's clock may be off."""
MOST_REMEMBERED = 10_000
"""Of verified tokens, as many as fit in about 10 MB."""

_TYPES = ("at+jwt", "application/at+jwt")
_HEADER = {"alg", "kid", "typ"}
_JWS = PyJWS(["ES256"])

# What may stand in the headers that backends believe: visible ASCII without the comma, which separates roles.
_NAME = re.compile(r"[!-+\--~]{1,255}")


class InvalidToken(Unauthenticated):
    """The token is not one that the issuer made for this API."""

    message = "The access token is not valid: {problem}."


class TokenExpired(Unauthenticated):
    """The token's time is over."""

    message = "The access token has expired."


@dataclass(frozen=True, slots=True)
class User:
    """For whom a request is made."""

    id: str
    roles: frozenset[str]
    session_id: str
    """The id of the session or of the API key; empty for tokens of outside issuers."""
    is_person: bool = True
    """Whether an access token says so, and not an API key."""

    @property
    def quota(self) -> str:
        """What requests are counted by."""
        return self.id if self.is_person else self.session_id


class _Verified(NamedTuple):
    user: User
    expires: float


class Tokens:
    """Verifies tokens of one issuer for one audience."""

    def __init__(self, keys: Keys, issuer: str, audience: str, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._verified: dict[str, _Verified] = {}
        self._verified_with = keys.current

    async def verify(self, token: str) -> User:
        """Returns whose token it is. Raises InvalidToken, TokenExpired or KeysUnavailable.

        A signature takes as long as all the rest of a call, so a token is verified once with each set of keys.
        """
        if self._verified_with is not self._keys.current:
            self._verified, self._verified_with = {}, self._keys.current
        verified = self._verified.get(token)
        if verified is None:
            verified = await self._verify(token)
            if len(self._verified) < MOST_REMEMBERED:
                self._verified[token] = verified
        if verified.expires <= self._clock() - LEEWAY_SECONDS:
            raise TokenExpired
        return verified.user

    async def _verify(self, token: str) -> "_Verified":
        if len(token) > LARGEST_TOKEN:
            raise InvalidToken(problem="it is too long")
        parts = token.split(".")
        if len(parts) != 3:
            raise InvalidToken(problem="it is no JWT")
        try:
            header, _, _ = (base64url(part) for part in parts)
            kid = _kid(json_object(header))
        except ValueError as error:
            raise InvalidToken(problem="it is no JWT") from error
        key = await self._keys.find(kid)
        if key is None:
            raise InvalidToken(problem="its key is unknown")
        try:
            return self._claims(json_object(_signed(token, key)))
        except ValueError as error:
            raise InvalidToken(problem="its claims are no JSON object") from error

    def _claims(self, claims: dict[str, Any]) -> "_Verified":
        audience, roles = claims.get("aud"), claims.get("roles", [])
        if claims.get("iss") != self._issuer:
            raise InvalidToken(problem="it is from another issuer")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise InvalidToken(problem="it is for another audience")
        issued, expires = _time(claims, "iat"), _time(claims, "exp")
        begins = max(issued, _time(claims, "nbf") if "nbf" in claims else issued)
        if begins > self._clock() + LEEWAY_SECONDS:
            raise InvalidToken(problem="its time has not come")
        if not isinstance(roles, list):
            raise InvalidToken(problem="roles is no list")
        user = User(
            _name(claims.get("sub"), "sub"),
            frozenset(_name(role, "roles") for role in roles),
            _name(claims["sid"], "sid") if "sid" in claims else "",
        )
        return _Verified(user, expires)


def _kid(header: dict[str, Any]) -> str:
    """Returns the key id of a header that says what it has to and nothing else (crit, jku, jwk and x5u least)."""
    if header.keys() != _HEADER or header["alg"] != "ES256" or not isinstance(header["kid"], str):
        raise InvalidToken(problem="its header must be alg ES256, kid and typ")
    if not isinstance(header["typ"], str) or header["typ"].lower() not in _TYPES:
        raise InvalidToken(problem="it is no access token")
    return header["kid"]


def _signed(token: str, key: ec.EllipticCurvePublicKey) -> bytes:
    """Returns what the key's owner signed."""
    try:
        payload: bytes = _JWS.decode(token, key, algorithms=["ES256"])
    except InvalidTokenError as error:
        raise InvalidToken(problem="its signature is wrong") from error
    return payload


def _time(claims: dict[str, Any], name: str) -> float:
    """Returns a NumericDate (RFC 7519, 2) in seconds."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) == math.inf:
        raise InvalidToken(problem=f"{name} is no time")
    return value


def _name(value: object, claim: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidToken(problem=f"{claim} is no name")
    return value
