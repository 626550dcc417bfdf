"""Pagination (AIP-158): newest first, by id, with page tokens that are bound to the list they came from."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.runtime.errors import InvalidPageToken

DEFAULT_SIZE = 50
LARGEST_SIZE = 1000
_BINDING_BYTES = 8
_AFTER_EVERY_ID = "~"

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list that a request asks for."""

    size: int
    before: str
    """Only what sorts before this."""
    binding: bytes

    @property
    def rows(self) -> int:
        """How many rows to read: the page, and one that tells whether there is another."""
        return self.size + 1

    def cut(self, rows: Sequence[Row], id_of: Callable[[Row], str]) -> tuple[Sequence[Row], str]:
        """Returns the page and the token of the next one, given `rows` rows or as many as there are."""
        if len(rows) <= self.size:
            return rows, ""
        page = rows[: self.size]
        token = base64.urlsafe_b64encode(self.binding + id_of(page[-1]).encode()).rstrip(b"=").decode()
        return page, token


def page(size: int, token: str, *arguments: str) -> Page:
    """Reads page_size and page_token; `arguments` are all else that the list depends on.

    Raises InvalidPageToken.
    """
    binding = hashlib.sha256("\0".join(arguments).encode()).digest()[:_BINDING_BYTES]
    return Page(min(size or DEFAULT_SIZE, LARGEST_SIZE), _before(token, binding) if token else _AFTER_EVERY_ID, binding)


def _before(token: str, binding: bytes) -> str:
    try:
        content = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        before = content[_BINDING_BYTES:].decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidPageToken from error
    if content[:_BINDING_BYTES] != binding or not before:
        raise InvalidPageToken
    return before
