"""Logging in and staying logged in: a password buys a session, its refresh token the next pair of tokens."""

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.runtime import caller
from services.runtime.ids import new_id
from services.user.domain import (
    ACCESS_TOKEN_LIFETIME,
    REFRESH_TOKEN_LIFETIME,
    Credentials,
    InvalidCredentials,
    State,
    Tokens,
    User,
    UserSuspended,
    in_order,
    text,
)
from services.user.keys import KeyRing
from services.user.passwords.domain import account
from services.user.passwords.hashing import Passwords
from services.user.passwords.throttling import Throttle
from services.user.refresh_tokens import RefreshToken
from services.user.store import Sessions, Users


@dataclass(frozen=True, slots=True)
class Authentication:
    """Opens and renews sessions. Access tokens name `issuer` and `audience`."""

    users: Users
    sessions: Sessions
    passwords: Passwords
    throttle: Throttle
    keys: KeyRing
    issuer: str
    audience: str

    async def log_in(self, email: str, password: str) -> Tokens:
        """Opens a session. Raises InvalidCredentials, TooManyAttempts or UserSuspended."""
        credentials = await self._verified(text(email, "email"), password)
        if credentials.user.state is State.SUSPENDED:
            raise UserSuspended
        if self.passwords.outdated(credentials.password_hash):
            password_hash = await self.passwords.hash(password)
            if not await self.users.replace_hash(credentials, password_hash):
                return await self.log_in(email, password)  # somebody else did, or there is a new password
            credentials = replace(credentials, password_hash=password_hash)
        now, token = datetime.now(UTC), RefreshToken.new(new_id("ses"))
        user = await self.sessions.open(credentials, token, now, now + REFRESH_TOKEN_LIFETIME)
        return self._tokens(user, token, now)

    async def _verified(self, email: str, password: str) -> Credentials:
        async with self.throttle.attempt(account(email), caller.current().address):
            credentials = await self.users.credentials(email)
            stored = credentials.password_hash if credentials else None
            if not await self.passwords.matches(password, stored) or credentials is None:
                raise InvalidCredentials
        return credentials

    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchanges a refresh token for the next pair of tokens. Raises InvalidRefreshToken."""
        now, token = datetime.now(UTC), RefreshToken.parse(refresh_token)
        successor = token.successor()
        user = await self.sessions.renew(token, successor, now, now + REFRESH_TOKEN_LIFETIME)
        return self._tokens(user, successor, now)

    def _tokens(self, user: User, refresh_token: RefreshToken, now: datetime) -> Tokens:
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user.id,
            "sid": refresh_token.session_id,
            "roles": in_order(user.roles),
            "jti": secrets.token_urlsafe(16),
            "client_id": "drawbridge",
            "iat": int(now.timestamp()),
            "exp": int((now + ACCESS_TOKEN_LIFETIME).timestamp()),
        }
        return Tokens(self.keys.sign(claims, now), refresh_token.text)
