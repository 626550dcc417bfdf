"""Logs: one JSON object a line on standard output, with no secret and nothing personal in any.

What an exception says may quote what somebody sent: a key that is there twice, an address, a password in a URL. So of
most it is told what they are and where they are from, and of those the text, too, that are known to quote nothing.
"""

import logging
import sys
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import structlog

from services.runtime import trace
from services.runtime.errors import Error

in_band: ContextVar[str] = ContextVar("in_band", default="OK")
"""The outcome of the current call if it raises nothing: its handler may tell the client of an error by itself."""

_CAREFUL = {"services", "authz", "nats"}
"""Whose exceptions quote nothing. Those of this repository have to see to it that they do not."""
_SYSTEM = {"builtins", "socket", "ssl"}
"""Where the errors of the operating system are from. (Those that libraries derive from them quote URLs, say.)"""
_LONGEST = 300


def configure(service: str) -> None:
    """Sends structlog, and what libraries log through the standard library, to standard output as JSON.

    What ends the process is logged so, too.
    """

    def add_context(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        if traceparent := trace.traceparent():
            event["trace_id"] = traceparent.split("-")[1]
        return event

    shared: list[structlog.typing.Processor] = [
        add_context,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        # As dict_tracebacks, but without the values of variables: passwords are among them.
        structlog.processors.ExceptionRenderer(_frames),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_of_a_library, *shared], processor=structlog.processors.JSONRenderer()
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    sys.excepthook = _crashed


def failure(error: BaseException) -> dict[str, Any]:
    """Returns what a log line says about a failure: what it and its cause are, and where it is from unless it is
    expected.
    """
    told: dict[str, Any] = {"error": brief(error)}
    if error.__cause__ is not None:
        told["cause"] = brief(error.__cause__)
    if not isinstance(error, Error):
        told["exc_info"] = error
    return told


def brief(error: BaseException) -> str:
    """Returns what an exception is, with its text where that quotes nothing that somebody sent."""
    return f"{type(error).__name__}: {text}" if (text := _text(error)) else type(error).__name__


def _text(error: BaseException) -> str:
    kind = type(error).__module__
    library = kind.partition(".")[0]
    if isinstance(error, Error) or library in _CAREFUL or (isinstance(error, OSError) and kind in _SYSTEM):
        return str(error)
    if library == "asyncpg":
        # Of asyncpg itself: it quotes the arguments that it cannot send.
        own = "" if isinstance(error, ValueError) else str(error)
        return _of_postgres(error, error.args[0]) if hasattr(error, "sqlstate") else own
    if library == "sqlalchemy" and hasattr(error, "orig"):  # of migrations
        return _of_postgres(error.orig, error.orig.diag.message_primary or str(error.orig))
    if library == "grpc" and hasattr(error, "details"):
        return f"{error.code().name}: {error.details()}"  # type: ignore[attr-defined]  # of AioRpcError
    if library == "obstore":  # after that comes the store's answer, which quotes the request and its credentials
        return str(error).partition("<")[0][:_LONGEST]
    return ""


_ABOUT_ROWS = ("21", "22", "23", "P0")
"""Classes of SQLSTATE: what Postgres says then may quote values."""


def _of_postgres(error: Any, message: str) -> str:
    """Returns what Postgres says, without its details, which quote rows."""
    state = error.sqlstate or ""
    if not state.startswith(_ABOUT_ROWS):
        return f"{state}: {message}" if state else message
    about = getattr(error, "diag", error)  # psycopg has it there
    names = (getattr(about, f"{what}_name", None) for what in ("table", "column", "constraint"))
    return " ".join([state, *filter(None, names)])


def _frames(exc_info: structlog.typing.ExcInfo) -> list[dict[str, Any]]:
    """Returns where exceptions are from, without what they say."""
    return _without_text(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)(exc_info))


def _without_text(stacks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for stack in stacks:
        for one in ("exc_value", "exc_notes", "syntax_error"):
            stack.pop(one, None)
        for group in stack.get("exceptions", ()):
            _without_text(group)
    return stacks


def _of_a_library(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Keeps of what a library says the first line: asyncio's others show tasks, with the texts of their exceptions."""
    event["event"] = event["event"].partition("\n")[0]
    exc_info = event.get("exc_info")
    if isinstance(exc_info, tuple) and exc_info[1] is not None:
        event["error"] = brief(exc_info[1])
    return event


def _crashed(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    structlog.get_logger().error("crashed", **failure(error))
