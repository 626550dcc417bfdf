"""Logs: one JSON object a line on standard output."""

import logging
import sys
from contextvars import ContextVar
from typing import Any

import structlog

from services.runtime import trace
from services.runtime.errors import Error

in_band: ContextVar[str] = ContextVar("in_band", default="OK")
"""The outcome of the current call if it raises nothing: its handler may tell the client of an error by itself."""


def configure(service: str) -> None:
    """Sends structlog, and what libraries log through the standard library, to standard output as JSON."""

    def add_context(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        if traceparent := trace.traceparent():
            event["trace_id"] = traceparent.split("-")[1]
        return event

    processors: list[structlog.typing.Processor] = [
        add_context,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        # As dict_tracebacks, but without the values of variables: passwords are among them.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    ]
    structlog.configure(
        processors=[*processors, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=processors, processor=structlog.processors.JSONRenderer())
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def failure(error: Exception) -> dict[str, Any]:
    """Returns what a log line says about a failure: its text and cause, and where it is from unless it is expected."""
    told: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
    if error.__cause__ is not None:
        told["cause"] = f"{type(error.__cause__).__name__}: {error.__cause__}"
    if not isinstance(error, Error):
        told["exc_info"] = error
    return told
