"""Content-Digest (RFC 9530): what a client says the hash of its request's content is. No I/O."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from hmac import compare_digest

from services.runtime.errors import FieldViolation, InvalidArgument

_KNOWN = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}

# A dictionary of structured fields (RFC 8941, 3.2), its values of any type but inner lists.
_KEY = r"[a-z*][a-z0-9_\-.*]*"
_BYTES = r":[A-Za-z0-9+/=]*:"
_ITEM = (
    rf'(?:{_BYTES}|\?[01]|-?[0-9]+(?:\.[0-9]+)?|"(?:[ !#-\[\]-~]|\\["\\])*"|[A-Za-z*][!#$%&\'*+\-.^_`|~:/0-9A-Za-z]*)'
)
_PARAMETERS = rf"(?:; *{_KEY}(?:={_ITEM})?)*"
_MEMBER = re.compile(rf"({_KEY})(?:=({_ITEM}))?{_PARAMETERS}[ \t]*(,[ \t]*(?=[^ \t])|\Z)")


class InvalidContentDigest(InvalidArgument):
    """The header Content-Digest is none, or does not say what such a hash can be."""

    message = "The Content-Digest header cannot be read: {problem}."

    def __init__(self, problem: str) -> None:
        super().__init__(fields=[FieldViolation("Content-Digest", problem)], problem=problem)


class DigestMismatch(InvalidArgument):
    """The content is not what its sender says it is."""

    message = "The content that has arrived has another {algorithm} than the Content-Digest header says."


class ContentDigest:
    """Hashes content as it goes by, by those algorithms that both sides know."""

    def __init__(self, header: str) -> None:
        """Takes the header, empty where there is none. Raises InvalidContentDigest."""
        self._expected = _expected(header)
        self._hashes = {algorithm: _KNOWN[algorithm]() for algorithm in self._expected}

    def __bool__(self) -> bool:
        """Whether there is anything to verify."""
        return bool(self._hashes)

    def update(self, data: bytes) -> None:
        """Takes the next piece of the content."""
        for one in self._hashes.values():
            one.update(data)

    def verify(self) -> None:
        """Raises DigestMismatch."""
        for algorithm, expected in self._expected.items():
            if not compare_digest(self._hashes[algorithm].digest(), expected):
                raise DigestMismatch(algorithm=algorithm)


def _expected(header: str) -> Mapping[str, bytes]:
    """Returns the hashes by algorithm. Raises InvalidContentDigest."""
    found: dict[str, bytes] = {}
    header, start = header.strip(" \t"), 0
    while start < len(header):
        member = _MEMBER.match(header, start)
        if member is None:
            raise InvalidContentDigest("it is no dictionary of structured fields (RFC 8941)")
        algorithm, value = member[1], member[2] or ""
        if algorithm in _KNOWN:
            found[algorithm] = _hash(algorithm, value)
        start = member.end()
    return found


def _hash(algorithm: str, value: str) -> bytes:
    if not re.fullmatch(_BYTES, value):
        raise InvalidContentDigest(f"{algorithm} is no byte sequence, which is :base64:")
    try:
        digest = base64.b64decode(value[1:-1], validate=True)
    except binascii.Error:
        raise InvalidContentDigest(f"{algorithm} is not base64") from None
    if len(digest) != _KNOWN[algorithm]().digest_size:
        raise InvalidContentDigest(f"{algorithm} does not have {_KNOWN[algorithm]().digest_size} bytes")
    return digest
