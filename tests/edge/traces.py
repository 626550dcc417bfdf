"""Traces of what should be nowhere: values, in every form in which they might have been written."""

import base64
import binascii
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

SHORTEST = 8
"""Shorter values are found by chance in the digits of ids and times."""


class Values:
    """Values that are secret or personal, by what they are."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def add(self, name: str, value: str) -> str:
        """Notes one, and returns it."""
        assert len(value) >= SHORTEST, name
        self._values[name] = value
        return value

    def traces(self, folder: Path) -> list[tuple[str, str, str]]:
        """Returns which of them are in files of a folder: the value's name, the form, and the line's beginning."""
        forms = [(name, form, text) for name, value in self._values.items() for form, text in forms_of(value)]
        found = []
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            content = path.read_bytes().lower()
            for name, form, text in forms:
                if (place := content.find(text.lower())) >= 0:
                    line = content[content.rfind(b"\n", 0, place) + 1 : place]
                    found.append((name, form, f"{path.name}: {line.decode(errors='replace')[-300:]}"))
        return found


def forms_of(value: str) -> Iterator[tuple[str, bytes]]:
    """Yields a value in every form, with what that is."""
    raw = value.encode()
    yield "plain", raw
    yield "JSON", json.dumps(value)[1:-1].encode()
    yield "URL", quote(value, safe="").encode()
    yield "form", quote_plus(value, safe="").encode()
    yield "hex", binascii.hexlify(raw)
    for offset in range(3):  # wherever it begins in what was encoded
        encoded = base64.b64encode(b"\0" * offset + raw + b"\0" * 3)
        sure = encoded[-(-8 * offset // 6) : 8 * (offset + len(raw)) // 6]
        yield f"base64+{offset}", sure
        yield f"base64url+{offset}", sure.translate(bytes.maketrans(b"+/", b"-_"))
