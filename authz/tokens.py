"""Who they are: access tokens as JWTs (RFC 9068), checked by the book (RFC 8725).

PyJWT's algorithms check the signature; all else is read here, once and strictly: encoding, headers, claims. What a
token says is not believed before that, but for its issuer and its key's id, which choose the key.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from user.v1 import user_pb2

from authz.issuers import Issuer
from authz.jwk import Key
from authz.jwks import PublicKeys
from authz.strict import base64url, json_object
from services.runtime.errors import Unauthenticated
from services.runtime.revocations import Revocations, SessionEnded

LARGEST_TOKEN = 4096
LEEWAY_SECONDS = 5.0
"""How far the issuer's clock may be off."""
LONGEST_USE_SECONDS = 3540.0
"""How old a token may become, whatever it says. A revocation is known for an hour (runtime.revocations)."""
LONGEST_LIFE_SECONDS = 24 * 3600.0
"""What lives longer by its own claims is no access token."""
MOST_REMEMBERED = 10_000
"""Of verified tokens; the oldest go first."""

_TYPES = ("at+jwt", "application/at+jwt")
_HEADER = {"alg", "kid", "typ"}
_LATEST = 253_402_300_799  # the end of the year 9999

# What may stand in the headers that backends believe: visible ASCII without the comma, which separates roles.
_NAME = re.compile(r"[!-+\--~]{1,255}")


class InvalidToken(Unauthenticated):
    """The token is not one that an issuer made for this API."""

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


class _Verified(NamedTuple):
    user: User
    issued: float
    expires: float
    issuer: Issuer
    keys: PublicKeys
    """With which it was verified."""


class Tokens:
    """Verifies tokens of some issuers, and that they were not revoked."""

    def __init__(
        self, issuers: Iterable[Issuer], revocations: Revocations, clock: Callable[[], float] = time.time
    ) -> None:
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._revocations = revocations
        self._clock = clock
        self._verified: dict[bytes, _Verified] = {}
        """By the SHA-256 of the token, in the order in which they came."""

    async def verify(self, token: str) -> User:
        """Returns whose token it is.

        Raises InvalidToken, TokenExpired, SessionEnded, KeysUnavailable or RevocationsUnavailable. A signature takes as
        long as all the rest of a call, so a token is verified once with each set of keys.
        """
        self._revocations.require_read()
        if len(token) > LARGEST_TOKEN:
            raise InvalidToken(problem="it is too long")
        digest = sha256(token.encode()).digest()
        verified = self._verified.get(digest)
        if verified is None or verified.keys is not verified.issuer.keys.current:
            verified = await self._verify(token)
            self._remember(digest, verified)
        if verified.expires <= self._clock() - LEEWAY_SECONDS:
            raise TokenExpired
        self._require_open(verified)
        return verified.user

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._verified.pop(digest, None)
        if len(self._verified) >= MOST_REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = verified

    def _require_open(self, verified: _Verified) -> None:
        """Raises SessionEnded. Tokens without a session end with what else their user had at a time."""
        if verified.user.session_id:
            self._revocations.require_open(verified.user.session_id)
        elif verified.issued <= self._ended_at(verified.user.id) + LEEWAY_SECONDS:  # by the issuer's clock
            raise SessionEnded

    def _ended_at(self, user_id: str) -> float:
        event = self._revocations.event(user_id)
        return user_pb2.SessionEvent.FromString(event).end_time.ToNanoseconds() / 1e9 if event else 0.0

    async def _verify(self, token: str) -> _Verified:
        parts = token.split(".")
        if len(parts) != 3:
            raise InvalidToken(problem="it is no JWT")
        try:
            header, payload, signature = map(base64url, parts)
            algorithm, kid = _algorithm_and_kid(json_object(header))
            claims = json_object(payload)
        except ValueError as error:
            raise InvalidToken(problem="it is no JWT") from error
        issuer = self._issuers.get(_text(claims, "iss"))
        if issuer is None:
            raise InvalidToken(problem="it is from another issuer")
        key = await issuer.keys.find(kid)
        keys = issuer.keys.current
        if key is None:
            raise InvalidToken(problem="its key is unknown")
        _require_signature(key, algorithm, token.rpartition(".")[0], signature)
        return self._claims(claims, issuer, keys)

    def _claims(self, claims: dict[str, Any], issuer: Issuer, keys: PublicKeys) -> _Verified:
        """Reads the claims of a token that its issuer did sign. Raises InvalidToken or TokenExpired."""
        audiences = claims.get("aud")
        audiences = audiences if isinstance(audiences, list) else [audiences]
        if issuer.audience not in audiences or not all(isinstance(one, str) for one in audiences):
            raise InvalidToken(problem="it is for another audience")
        issued, expires = self._times(claims)
        for name in ("sub", "jti"):
            _name(claims.get(name), name)
        if "client_id" in claims:
            _name(claims["client_id"], "client_id")
        roles = claims.get(issuer.roles_claim, [])
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise InvalidToken(problem=f"{issuer.roles_claim} is no list of names")
        user = User(
            _name(claims.get(issuer.user_claim), issuer.user_claim),
            frozenset(_name(role, issuer.roles_claim) for role in issuer.ours(roles)),
            "" if issuer.is_outside or "sid" not in claims else _name(claims["sid"], "sid"),
        )
        return _Verified(user, issued, min(expires, issued + LONGEST_USE_SECONDS), issuer, keys)

    def _times(self, claims: dict[str, Any]) -> tuple[float, float]:
        """Returns when a token was issued and when it expires. Raises InvalidToken or TokenExpired."""
        issued, expires = _time(claims, "iat"), _time(claims, "exp")
        if expires <= self._clock() - LEEWAY_SECONDS:
            raise TokenExpired
        begins = max(issued, _time(claims, "nbf") if "nbf" in claims else issued)
        if begins > self._clock() + LEEWAY_SECONDS:
            raise InvalidToken(problem="its time has not come")
        if not begins < expires <= issued + LONGEST_LIFE_SECONDS:
            raise InvalidToken(problem="it lives too long, or never")
        return issued, expires


def _algorithm_and_kid(header: dict[str, Any]) -> tuple[str, str]:
    """Returns what a header says that says what it has to and nothing else (crit, jku, jwk and x5u least)."""
    if header.keys() != _HEADER:
        raise InvalidToken(problem="its header must be alg, kid and typ")
    if _text(header, "typ").lower() not in _TYPES:
        raise InvalidToken(problem="it is no access token")
    return _text(header, "alg"), _text(header, "kid")


def _require_signature(key: Key, algorithm: str, signed: str, signature: bytes) -> None:
    """Raises InvalidToken where the key's owner did not sign this, or its algorithm is not the key's own."""
    if algorithm != key.algorithm:
        raise InvalidToken(problem="its alg is not that of its key")
    if not key.verifies(signed.encode(), signature):
        raise InvalidToken(problem="its signature is wrong")


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise InvalidToken(problem=f"{name} is no text")
    return value


def _time(claims: dict[str, Any], name: str) -> float:
    """Returns a NumericDate (RFC 7519, 2) in seconds."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise InvalidToken(problem=f"{name} is no time")
    return value


def _name(value: object, claim: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidToken(problem=f"{claim} is no name")
    return value
