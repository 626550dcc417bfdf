"""Reads the machine-readable zone of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.document.reader.layouts import TD1, TD3
from services.document.reader.lines import Line, cut, find, zones
from services.document.reader.models import Grey, Models
from services.document.reader.text import Row, readings, row

_SIDES = (480, 960, 1440)
"""To what size a picture is brought to find lines in it: the first is quick, and enough for most."""
_LEGIBLE = 0.6
_SURE = 0.6
_LAYOUTS = {44: TD3, 30: TD1}


@dataclass(frozen=True, slots=True)
class Zone:
    """What was found."""

    lines: tuple[str, ...] = ()
    """Of 44 or 30 characters; none: it cannot be read."""
    found: bool = False
    """Whether there is one at all."""


def read_zone(models: Models, picture: Grey) -> Zone:
    """Looks for a zone, in any direction, and reads it."""
    found = False
    for side in _SIDES:
        if side > _SIDES[0] and side > 1.5 * max(picture.shape):
            break
        for lines in zones(find(models, picture, side)):
            for one_way in (lines, tuple(line.turned() for line in reversed(lines))):
                rows = _read(models, picture, one_way)
                text = _text(rows)
                if text:
                    return Zone(text, found=True)
                found = found or len(rows) > 1
    return Zone(found=found)


def _read(models: Models, picture: Grey, lines: Sequence[Line]) -> list[Row]:
    """Returns what can be read of the lines; nothing when the first is upside down, or other text."""
    rows: list[Row] = []
    for line in lines:
        read = row(models.read(cut(picture, line)))
        if read and read.legible > _LEGIBLE:
            rows.append(read)
        elif not rows:
            return []
    return rows


def _text(rows: Sequence[Row]) -> tuple[str, ...]:
    """Returns the lines of a zone; none: this is none, or nobody can tell what is in one of its cells."""
    for length, layout in _LAYOUTS.items():
        for start in range(len(rows) - len(layout) + 1):
            part = rows[start : start + len(layout)]
            if all(len(one.scores) == length for one in part):
                read = [readings(one.scores, allowed) for one, allowed in zip(part, layout, strict=True)]
                if all(sure > _SURE for line in read for _, sure in line):
                    return tuple("".join(characters[0] for characters, _ in line) for line in read)
    return ()
