"""Reads one line of a zone: all characters of a zone are equally far from each other, in cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from services.document.reader.models import ALPHABET, Scores

ALIKE = ("0DOQ", "1I", "2Z", "5S", "8B", "6G")
"""Characters that the network, which goes by what is usual beside each other, takes for each other."""
_LEAST_EMISSIONS = 20
_FARTHEST = 0.6
"""How far a character may be from where it should be, in cells."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the network made of a line."""

    scores: Scores
    """For each cell, for each of ALPHABET: from 0 to 1."""
    cells: npt.NDArray[np.int_]
    """Those in which a character was seen."""
    middles: npt.NDArray[np.float64]
    """Where those are seen, as shares of the line's length."""
    legible: float
    """How much of what was seen is in ALPHABET: from 0 to 1. Of other text, and of lines upside down, it is low."""


def row(scores: Scores) -> Row | None:
    """Finds the cells, and what is in them; None: there are too few characters, or they are not in cells."""
    seen = scores.argmax(1)
    starts = [step for step, one in enumerate(seen) if one and (step == 0 or seen[step - 1] != one)]
    if len(starts) < _LEAST_EMISSIONS:
        return None
    middles = np.array([_middle(scores, step) for step in starts])
    pitch = float(np.median(np.diff(middles)))
    places = np.concatenate([[0], np.cumsum(np.maximum(1, np.rint(np.diff(middles) / pitch)))]).astype(int)
    curve = np.polyfit(places, middles, 2)  # perspective makes cells smaller the farther away they are
    if np.abs(np.polyval(curve, places) - middles).max() > _FARTHEST * pitch:
        return None
    cells = np.polyval(curve, np.arange(places[-1] + 1))
    edges = np.rint(np.concatenate([cells - pitch / 2, [cells[-1] + pitch / 2]])).astype(int).clip(0, len(scores))
    best = np.array([scores[first : max(last, first + 1), 1:].max(0) for first, last in pairwise(edges)])
    legible = float(scores[starts, 1:].sum(1).mean())
    return Row(best / best.sum(1, keepdims=True), places, (middles + 0.5) / len(scores), legible)


def _middle(scores: Scores, step: int) -> float:
    """Where a character is, more exactly than a step."""
    around = slice(max(0, step - 1), step + 3)
    weights = scores[around, scores[step].argmax()]
    return float((np.arange(len(scores))[around] * weights).sum() / weights.sum())


def readings(scores: Scores, allowed: Sequence[str]) -> list[tuple[str, float]]:
    """Returns for each cell the characters it may have, the likeliest first, and how sure it is that it has one.

    There are several when they look alike and are allowed there.
    """
    return [_reading(dict(zip(ALPHABET, cell, strict=True)), here) for cell, here in zip(scores, allowed, strict=True)]


def _reading(cell: dict[str, float], allowed: str) -> tuple[str, float]:
    shapes = [one for one in (*ALIKE, *ALPHABET) if set(one) & set(allowed)]
    likeliest = max(shapes, key=lambda shape: sum(cell[one] for one in shape))
    characters = sorted(set(likeliest) & set(allowed), key=lambda one: -cell[one])
    return "".join(characters), sum(cell[one] for one in likeliest)
