"""Logging in and staying logged in: a password buys a session, its refresh token the next pair of tokens."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from services.runtime.ids import new_id
from services.user.domain import (
    ACCESS_TOKEN_LIFETIME,
    REFRESH_TOKEN_LIFETIME,
    InvalidCredentials,
    InvalidRefreshToken,
    State,
    Tokens,
    User,
    UserSuspended,
    in_order,
    text,
)
from services.user.keys import KeyRing
from services.user.passwords import Passwords
from services.user.store import Sessions, Users

# The session's id, to know the family of a token that was used before, and 256 random bits.
_REFRESH_TOKEN = re.compile(r"(ses_[0-9a-f]{32})\.[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Authentication:
    """Opens and renews sessions. Access tokens name `issuer` and `audience`."""

    users: Users
    sessions: Sessions
    passwords: Passwords
    keys: KeyRing
    issuer: str
    audience: str

    async def log_in(self, email: str, password: str) -> Tokens:
        """Opens a session. Raises InvalidCredentials or UserSuspended."""
        credentials = await self.users.credentials(text(email, "email"))
        stored = credentials.password_hash if credentials else None
        if not await self.passwords.matches(password, stored) or credentials is None:
            raise InvalidCredentials
        if credentials.user.state is State.SUSPENDED:
            raise UserSuspended
        if self.passwords.outdated(credentials.password_hash):
            await self.users.replace_hash(credentials, await self.passwords.hash(password))
        now, session_id = datetime.now(UTC), new_id("ses")
        tokens = self._tokens(credentials.user, session_id, _refresh_token(session_id), now)
        expires = now + REFRESH_TOKEN_LIFETIME
        await self.sessions.open(session_id, credentials.user.id, _sha256(tokens.refresh_token), now, expires)
        return tokens

    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchanges a refresh token for the next pair of tokens. Raises InvalidRefreshToken."""
        match = _REFRESH_TOKEN.fullmatch(refresh_token)
        if match is None:
            raise InvalidRefreshToken
        now, session_id = datetime.now(UTC), match[1]
        successor = _refresh_token(session_id)
        user = await self.sessions.renew(
            session_id, _sha256(refresh_token), _sha256(successor), now, now + REFRESH_TOKEN_LIFETIME
        )
        return self._tokens(user, session_id, successor, now)

    def _tokens(self, user: User, session_id: str, refresh_token: str, now: datetime) -> Tokens:
        # No client_id, though RFC 9068 wants one: clients do not register.
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user.id,
            "sid": session_id,
            "roles": in_order(user.roles),
            "jti": secrets.token_urlsafe(16),
            "iat": int(now.timestamp()),
            "exp": int((now + ACCESS_TOKEN_LIFETIME).timestamp()),
        }
        return Tokens(self.keys.sign(claims, now), refresh_token)


def _refresh_token(session_id: str) -> str:
    return f"{session_id}.{secrets.token_urlsafe(32)}"


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
