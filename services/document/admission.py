"""Admission: how many uploads there may be at once. Each holds a connection, memory and room on a disk. No I/O."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.runtime.errors import ResourceExhausted, Unavailable

RETRY_SECONDS = 5.0
"""When there is likely to be room again: as long as a slow client takes for a picture."""


class TooManyUploads(ResourceExhausted):
    """The user uploads as many files at once as anybody may."""

    message = "You are uploading {limit} files already: wait until one is done."
    retry_after = RETRY_SECONDS


class UploadsBusy(Unavailable):
    """This replica takes as many uploads as it can."""

    message = "The service takes as many uploads as it can right now."
    retry_after = RETRY_SECONDS


@dataclass(frozen=True, slots=True)
class Limits:
    """What uploads may take."""

    file_bytes: int
    documents_of_user: int
    """How many a user may keep."""
    at_once_of_user: int
    """Here, in this process."""
    at_once: int
    """Here, of all users."""


class Admission:
    """The uploads that are under way in this process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._users: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """How many there are."""
        return self._users.total()

    @contextmanager
    def admitted(self, user_id: str) -> Iterator[None]:
        """Counts an upload for as long as it takes. Raises TooManyUploads or UploadsBusy."""
        if self._users[user_id] >= self._limits.at_once_of_user:
            raise TooManyUploads(limit=self._limits.at_once_of_user)
        if self.under_way >= self._limits.at_once:
            raise UploadsBusy
        self._users[user_id] += 1
        try:
            yield
        finally:
            self._users[user_id] -= 1
            if not self._users[user_id]:
                del self._users[user_id]
