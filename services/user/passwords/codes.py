"""The codes that are mailed: computed whenever they are needed, and kept nowhere."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.user.passwords import domain
from services.user.passwords.domain import Reset

_LABEL = b"drawbridge: codes of password resets"
_KEY_BYTES = 32


class Codes:
    """Knows the code of every reset."""

    def __init__(self, secret: str) -> None:
        """`secret` may have other uses: the key is derived from it for this one."""
        self._key = HKDF(SHA256(), _KEY_BYTES, salt=None, info=_LABEL).derive(secret.encode())

    def of(self, reset: Reset) -> str:
        """Returns the code as it is mailed."""
        return domain.code(self._key, reset)

    def match(self, given: str, reset: Reset) -> bool:
        """Tells whether this is the code. Those of nobody have none."""
        return domain.same_code(given, self.of(reset)) and bool(reset.user_id)
