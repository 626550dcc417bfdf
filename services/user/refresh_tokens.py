"""Refresh tokens: what they are made of, and what is remembered of them."""

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from services.user.domain import InvalidRefreshToken

_REFRESH_TOKEN = re.compile(r"(?P<family>(?P<session>ses_[0-9a-f]{32})\.[A-Za-z0-9_-]{21})[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token: its session's id, 126 random bits that all tokens of the session have, and 128 of its own.

    So one that was used before is told from one that never was, though only the newest is remembered.
    """

    text: str = field(repr=False)
    session_id: str
    _family: str = field(repr=False)

    @classmethod
    def parse(cls, value: str) -> "RefreshToken":
        """Returns what may be a refresh token. Raises InvalidRefreshToken where it cannot be."""
        match = _REFRESH_TOKEN.fullmatch(value)
        if match is None:
            raise InvalidRefreshToken
        return cls(value, match["session"], match["family"])

    @classmethod
    def new(cls, session_id: str) -> "RefreshToken":
        """Returns the first token of a session."""
        return cls.parse(f"{session_id}.{secrets.token_urlsafe(32)}")

    def successor(self) -> "RefreshToken":
        """Returns another token of the session."""
        return RefreshToken.parse(self._family + secrets.token_urlsafe(16))

    @property
    def sha256(self) -> bytes:
        """What is remembered of it."""
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def family_sha256(self) -> bytes:
        """What is remembered of all tokens of the session."""
        return hashlib.sha256(self._family.encode()).digest()
