"""Reads the machine-readable zone of a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from services.document.reader.glyphs import Comparison
from services.document.reader.layouts import CHECKED, TD1, TD3, Layout
from services.document.reader.lines import Line, cut, find, shrunk, smoothed, zones
from services.document.reader.models import ALPHABET, LINE_HEIGHT, Grey, Models
from services.document.reader.text import Row, readings, row
from services.document.verification import mrz

_SIDES = (480, 960, 1440)
"""To what size a picture is brought to find lines in it: the first is quick, and enough for most."""
_ATTEMPTS = ((1.0, 0.0), (1.0, 0.03), (1.25, 0.0), (0.85, 0.04))
"""How much of what is above and below a line is read with it, and how far noise is smoothed, in heights of a line."""
_MOST_GROUPS = 4
_LEGIBLE = 0.6
_SURE = 0.6
_KNOWN = 0.9
"""A typeface that is less like what was read is another."""
_CLEARLY, _AGREED = 0.03, 0.01
"""By how much a character must be more like what is there than another: against the network's word, or with it."""
_OTHER = 0.08
"""By how much another may be more like it than what was read."""


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
        if side > _SIDES[0] and (side > 1.5 * max(picture.shape) or (found and side == _SIDES[-1])):
            break
        for lines in islice(zones(find(models, picture, side)), _MOST_GROUPS):
            for one_way in (lines, tuple(line.turned() for line in reversed(lines))):
                for text in _texts(models, picture, one_way):
                    found = True
                    if text:
                        return Zone(text, found=True)
    return Zone(found=found)


def _texts(models: Models, picture: Grey, lines: Sequence[Line]) -> Iterator[tuple[str, ...]]:
    """Yields what lines say, each time they are read anew: nothing when they are no zone, () when nobody can tell."""
    picture, lines = shrunk(picture, lines)
    sharp = picture
    for height, soft in _ATTEMPTS:
        picture = smoothed(sharp, soft * lines[0].height)
        rows = []
        for line in lines:
            rows.append(row(models.read(cut(picture, replace(line, height=line.height * height)))))
            if not _legible(rows[0]):
                return
        for start, layout in _starts(rows):
            part = [one for one in rows[start : start + len(layout)] if one]
            comparison = _compare(picture, lines[start:], part)
            yield _decide(comparison, part, layout)
            again = [row(models.read(comparison.line(number, LINE_HEIGHT))) for number in range(len(layout))]
            if (0, layout) in _starts(again):
                yield _decide(comparison, [one for one in again if one], layout)
        if sum(map(_legible, rows)) > 1:
            yield ()


def _legible(read: Row | None) -> bool:
    return read is not None and read.legible > _LEGIBLE


def _starts(rows: Sequence[Row | None]) -> list[tuple[int, Layout]]:
    """Where among the lines a zone may begin, and which."""
    lengths = [len(one.scores) if one and _legible(one) else 0 for one in rows]
    return [
        (start, layout)
        for layout in (TD3, TD1)
        for start in range(len(rows))
        if lengths[start : start + len(layout)] == [len(cells) for cells in layout]
    ]


def _compare(picture: Grey, lines: Sequence[Line], rows: Sequence[Row]) -> Comparison:
    grid = [(cell, number) for number, one in enumerate(rows) for cell in one.cells]
    points = [line.at(one.middles) for line, one in zip(lines, rows, strict=False)]
    return Comparison(picture, [len(one.scores) for one in rows], np.array(grid, np.float64), np.concatenate(points))


def _decide(comparison: Comparison, rows: Sequence[Row], layout: Layout) -> tuple[str, ...]:
    """Returns the lines; () when nobody can tell what is in one of the cells."""
    read = [readings(one.scores, allowed) for one, allowed in zip(rows, layout, strict=True)]
    if any(sure < _SURE for line in read for _, sure in line):
        return ()
    like, shapes = comparison.likeness(["".join(characters[0] for characters, _ in line) for line in read])
    text, doubts = "", []
    for one, alike, line, allowed in zip(rows, shapes, read, layout, strict=True):
        for cell, (characters, _) in enumerate(line):
            seen, drawn = (dict(zip(ALPHABET, scores[cell], strict=True)) for scores in (one.scores, alike))
            character, clear = _character(characters, seen, drawn if like > _KNOWN else {})
            text += character
            if not clear:
                doubts.append(allowed[cell])
    lines = tuple(text[start : start + len(layout[0])] for start in range(0, len(text), len(layout[0])))
    return lines if not doubts or (set(doubts) <= CHECKED and _is_confirmed(lines)) else ()


def _character(characters: str, seen: dict[str, float], drawn: dict[str, float]) -> tuple[str, bool]:
    """Returns what is in a cell, and whether that is clear: to the network, and by its shape."""
    if not drawn:
        return characters[0], len(characters) == 1 and seen[characters[0]] > _SURE
    read, (best, *others) = characters[0], sorted(characters, key=lambda one: -drawn[one])
    if best != read and read.isdigit() == best.isdigit():  # context makes the network take letters for digits, no more
        return best, False
    least = _AGREED if seen[best] > _SURE * sum(seen[one] for one in characters) else _CLEARLY
    if any(drawn[best] - drawn[one] < least for one in others):
        return best, False
    ahead = max(drawn.values()) - drawn[best]
    return best, ahead == 0 or (seen[best] > _SURE and ahead < _OTHER)


def _is_confirmed(lines: tuple[str, ...]) -> bool:
    """Whether the check digits are right. They decide whether to believe a doubtful reading, never how to read."""
    zone = mrz.read(lines)
    return zone is not None and all(field.right for field in zone.fields.values())
