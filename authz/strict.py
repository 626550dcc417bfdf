"""Reading what strangers sent: base64url in its one canonical form, and JSON without double meaning."""

import base64
import json
from typing import Any

_DEEPEST = 200
"""How many objects and lists there may be in all; more than tokens and key sets have."""


def base64url(text: str) -> bytes:
    """Decodes base64url without padding (RFC 7515, 2). Raises ValueError for any but the canonical form."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode():
        raise ValueError("not canonical base64url")
    return data


def json_object(data: bytes) -> dict[str, Any]:
    """Decodes a JSON object. Raises ValueError, for duplicate members and NaN too."""
    if data.count(b"{") + data.count(b"[") > _DEEPEST:
        raise ValueError("too many objects and lists")
    value = _DECODER.decode(data.decode())
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) < len(members):
        raise ValueError("duplicate members")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
