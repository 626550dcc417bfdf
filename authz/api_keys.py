"""For whom an API key acts, as the user service says: asked about once a minute, and anew when anything of it ends."""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256

import grpc
import structlog
from user.v1 import api_key_pb2

from authz.tokens import User
from services.runtime import caller, deadline
from services.runtime.caller import Caller
from services.runtime.clients import MARGIN_SECONDS
from services.runtime.errors import Unauthenticated, Unavailable
from services.runtime.revocations import Revocations

KNOWN_SECONDS = 60.0
"""How long an answer is good."""
UNKNOWN_SECONDS = 5.0
"""The same of one that says that there is no such key."""
GRACE_SECONDS = 300.0
"""How long it is good beyond that while the user service is away, as long as ends are heard."""
ASK_AGAIN_SECONDS = 5.0
"""How long the user service is left alone with a key in its grace."""
ANSWER_SECONDS = 0.8
"""How long the user service may take: less than the edge waits for authz."""
MOST_REMEMBERED = 10_000
"""Of keys that there are, and of others; those not used for longest go first."""
MOST_QUESTIONS = 32
"""At once."""

_SHAPE = re.compile(r"dbk_[A-Za-z0-9_-]{43}")
_ENDS_KEYS = ("key_", "usr_")

_log = structlog.get_logger()

Resolve = Callable[[api_key_pb2.ResolveApiKeyRequest], Awaitable[api_key_pb2.ResolveApiKeyResponse]]


class InvalidApiKey(Unauthenticated):
    """The API key is unknown, revoked or expired, or its owner is not active."""

    message = "The API key is not valid."


class ApiKeysUnavailable(Unavailable):
    """The user service, which knows API keys, cannot be reached."""

    message = "API keys cannot be checked right now."


@dataclass(slots=True)
class _Known:
    """A key that there is, or was when the user service was asked."""

    user: User
    expires: float
    """Seconds since 1970."""
    good_until: float
    grace_until: float
    """By the monotonic clock."""


@dataclass(eq=False, slots=True)
class _Question:
    """A look-up under way, for all who wait for the same key."""

    answered: asyncio.Future[_Known | None]
    is_stale: bool = field(default=False)
    """Whether the answer may be from before something ended."""


class ApiKeys:
    """The API keys of late. Of the keys themselves only the SHA-256 is kept."""

    def __init__(
        self,
        resolve: Resolve,
        revocations: Revocations,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._revocations = revocations
        self._clock = clock
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        """Keys that there are not, and until when that is believed."""
        self._questions: dict[bytes, _Question] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MOST_QUESTIONS)
        revocations.listen(self._hear)

    async def verify(self, key: str) -> User:
        """Returns for whom a key acts. Raises InvalidApiKey, ApiKeysUnavailable or RevocationsUnavailable."""
        self._revocations.require_read()
        if not _SHAPE.fullmatch(key):
            raise InvalidApiKey
        digest = sha256(key.encode()).digest()
        known = await self._look_up(digest)
        if known is None or known.expires <= self._clock():
            raise InvalidApiKey
        return known.user

    async def _look_up(self, digest: bytes) -> _Known | None:
        now = self._monotonic()
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
            if now < known.good_until:
                return known
        elif now < self._unknown.get(digest, 0.0):
            return None
        return await asyncio.shield(self._ask(digest).answered)

    def _ask(self, digest: bytes) -> _Question:
        question = self._questions.get(digest)
        if question is None:
            question = self._questions[digest] = _Question(asyncio.get_running_loop().create_future())
            task = asyncio.create_task(self._answer(digest, question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return question

    async def _answer(self, digest: bytes, question: _Question) -> None:
        """Asks until the answer is from after all that ended, remembers it and tells all who wait."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._room:
                known = await self._asked(digest)
                while question.is_stale:
                    question.is_stale = False
                    known = await self._asked(digest)
            self._remember(digest, known)
            question.answered.set_result(known)
        except Exception as error:  # whatever it is, there is no answer
            _log.warning("api key not looked up", error=type(error).__name__)
            self._go_without(digest, question)
        finally:
            del self._questions[digest]

    async def _asked(self, digest: bytes) -> _Known | None:
        """Returns what the user service says. Raises AioRpcError."""
        caller.set_current(Caller())
        deadline.begin(ANSWER_SECONDS + MARGIN_SECONDS)
        try:
            answer = await self._resolve(api_key_pb2.ResolveApiKeyRequest(sha256=digest))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        user = User(answer.user_id, frozenset(answer.roles), answer.api_key_id, is_person=False)
        good_until = self._monotonic() + KNOWN_SECONDS
        return _Known(user, answer.expire_time.ToNanoseconds() / 1e9, good_until, good_until + GRACE_SECONDS)

    def _remember(self, digest: bytes, known: _Known | None) -> None:
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)
        if known is not None:
            self._known[digest] = known
        else:
            self._unknown[digest] = self._monotonic() + UNKNOWN_SECONDS
        for remembered in (self._known, self._unknown):
            if len(remembered) > MOST_REMEMBERED:
                remembered.popitem(last=False)

    def _go_without(self, digest: bytes, question: _Question) -> None:
        """Goes by what was said before, for a while. Whoever has no such answer is told to come again."""
        known = self._known.get(digest)  # not there any more if anything ended
        now = self._monotonic()
        if known is not None and now < known.grace_until and self._revocations.are_current:
            known.good_until = min(now + ASK_AGAIN_SECONDS, known.grace_until)
            question.answered.set_result(known)
        else:
            question.answered.set_exception(ApiKeysUnavailable())
            question.answered.exception()  # all who wait may be gone

    def _hear(self, subject_id: str) -> None:
        """Forgets what may not be so any more: a key, or all of a user's."""
        if not subject_id.startswith(_ENDS_KEYS):
            return
        for question in self._questions.values():
            question.is_stale = True
        of_it = [
            digest for digest, known in self._known.items() if subject_id in (known.user.session_id, known.user.id)
        ]
        for digest in of_it:
            del self._known[digest]
