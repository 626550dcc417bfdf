"""W3C Trace Context: one trace id from the edge to the last service, in every log line."""

import re
import secrets
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
_current: ContextVar[str] = ContextVar("traceparent", default="")


def begin(traceparent: str | None) -> str:
    """Continues the caller's trace with a span of its own, or starts one. Returns the trace id."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    trace_id, flags = match.groups() if match else (secrets.token_hex(16), "00")
    _current.set(f"00-{trace_id}-{secrets.token_hex(8)}-{flags}")
    return trace_id


def traceparent() -> str:
    """Returns the header that continues the current trace; empty outside of one."""
    return _current.get()
