"""Ids: a prefix that says what it is, and a UUIDv7 (RFC 9562) as 32 hex digits, so that ids sort by time."""

import uuid_utils


def new_id(prefix: str) -> str:
    """Returns a new id: new_id("pay") is "pay_" and 32 hex digits."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
