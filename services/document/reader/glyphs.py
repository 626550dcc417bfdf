"""Compares the cells of a zone with how typefaces draw its characters.

The network reads a line as a whole, and goes by what is usual: in a row of digits it takes an O for a 0. A shape that
is laid over another knows nothing of its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from services.document.reader.models import ALPHABET, Grey

CELL_WIDTH, CELL_HEIGHT = 32, 44
"""Of a drawn character with the space around it, in pixels."""
PITCH = 32
"""From one character to the next when a typeface is drawn as large as these."""
_AWAY = 8
"""How far all characters of a line may be from the middle of their cells, in pixels."""
_NEAR = 2
"""How much farther than the others one may be."""
_SIZES = (1.0, 0.92, 1.08, 0.84, 1.16)
"""How large characters may be drawn, when one is drawn at a time."""
_FINER = (0.96, 1.04)
_ENOUGH = 0.94
"""Nothing else can be more like it."""
_SAMPLES = 14
_STEP = 2
"""When typefaces are told apart, every other pixel is enough."""
_SOFT = 1.2

Shapes = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Away = tuple[float, float]
"""Down and across, in pixels."""


@cache
def typefaces() -> tuple[Shapes, ...]:
    """For each typeface, for each of ALPHABET: its pixels."""
    sheet = cv2.imread(str(Path(__file__).with_name("glyphs.png")), cv2.IMREAD_GRAYSCALE)
    if sheet is None:
        raise FileNotFoundError("glyphs.png")
    rows, columns = sheet.shape[0] // CELL_HEIGHT, len(ALPHABET)
    cells = sheet.reshape(rows, CELL_HEIGHT, columns, CELL_WIDTH).transpose(0, 2, 1, 3)
    return tuple(np.array([cv2.GaussianBlur(cell, (0, 0), _SOFT) for cell in row], np.float32) for row in cells)


class Comparison:
    """The cells of a zone, as a scanner would have seen them: no perspective, no turn, each as large as the others."""

    def __init__(self, picture: Grey, lengths: Sequence[int], grid: Points, points: Points) -> None:
        """Takes how many cells lines have, and where in the picture the middles of some are: (cell, line) to (x, y)."""
        flat, _ = cv2.findHomography(grid, points)
        self._flat = np.asarray(flat, np.float64)
        self._picture = picture
        self._lengths = lengths
        self._spacing = self._rows_apart()

    def _rows_apart(self) -> float:
        """How far lines are from each other, in cells."""
        column, row = (self._lengths[0] - 1) / 2, (len(self._lengths) - 1) / 2
        at = [(column, row), (column + 1, row), (column, row + 1)]
        middle, right, below = cv2.perspectiveTransform(np.array([at]), self._flat)[0]
        across, down = right - middle, below - middle
        return float(abs(across[0] * down[1] - across[1] * down[0]) / np.dot(across, across))

    def _windows(self, row: int, size: float, at: Sequence[int], room: int, away: Away) -> npt.NDArray[np.uint8]:
        """Cells of a line with this room on each side, in which characters of this size are as large as those drawn."""
        width, pitch = CELL_WIDTH + 2 * room, PITCH / size
        line = self._strip(row, pitch, width, CELL_HEIGHT + 2 * room, away)
        soft = cv2.copyMakeBorder(cv2.GaussianBlur(line, (0, 0), _SOFT), 0, 0, 0, 1, cv2.BORDER_REPLICATE)
        lefts = [round(one * pitch) for one in at]
        return np.array([soft[:, left : left + width] for left in lefts], np.uint8)

    def _strip(self, row: int, pitch: float, room: int, height: int, away: Away) -> Grey:
        """A line with half of this room on each side."""
        down, across = away
        to_grid = np.array(
            [
                [1 / pitch, 0, (across - room / 2) / pitch],
                [0, 1 / pitch / self._spacing, row + (down - height / 2) / pitch / self._spacing],
                [0, 0, 1],
            ]
        )
        strip = cv2.warpPerspective(
            self._picture,
            self._flat @ to_grid,
            (round((self._lengths[row] - 1) * pitch + room), height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(strip, np.uint8)

    def likeness(self, texts: Sequence[str]) -> tuple[float, list[Shapes]]:
        """Finds the typeface that is most like what was read. Returns how like: 1 is the same.

        And for each line, each cell and each of ALPHABET how like the cell is to that character.
        """
        best = _Fit(0, 1, 0, ())
        for size in _SIZES:
            if best.like < _ENOUGH:
                best = max(best, *(self._fit(texts, size, face) for face in range(len(typefaces()))))
        best = max(best, *(self._fit(texts, best.size * finer, best.face) for finer in _FINER))
        return best.like, [self._like(row, best) for row in range(len(texts))]

    def line(self, row: int, pixels: int) -> Grey:
        """Returns a line as a picture of its own, upright, so many pixels high."""
        return self._strip(row, pixels * PITCH / CELL_HEIGHT, pixels, pixels, (0, 0))

    def _fit(self, texts: Sequence[str], size: float, face: int) -> "_Fit":
        """Lays a typeface over some characters of each line."""
        likes, aways = [], []
        for row, text in enumerate(texts):
            at = _samples(text)
            windows = self._windows(row, size, at, _AWAY, (0, 0))
            cells = _normal(_every(windows[:, ::_STEP, ::_STEP], _STEP))
            shapes = _normal(typefaces()[face][[ALPHABET.index(text[one]) for one in at], ::_STEP, ::_STEP])
            like = np.einsum("cyxp,cp->cyx", cells, shapes)
            places = [np.unravel_index(one.argmax(), one.shape) for one in like]
            down, across = np.median(places, 0) * _STEP - _AWAY
            aways.append((float(down), float(across)))
            likes.append(like.max((1, 2)))
        return _Fit(float(np.concatenate(likes).mean()), size, face, tuple(aways))

    def _like(self, row: int, fit: "_Fit") -> Shapes:
        windows = self._windows(row, fit.size, range(self._lengths[row]), _NEAR, fit.aways[row])
        alike = _normal(_every(windows, 1)) @ _normal(typefaces()[fit.face]).T
        return np.asarray(alike.max((1, 2)), np.float32)


@dataclass(frozen=True, slots=True, order=True)
class _Fit:
    """How well a typeface fits."""

    like: float
    size: float
    face: int
    aways: tuple[Away, ...]
    """How far the characters of each line are from the middle of their cells."""


def _samples(text: str) -> list[int]:
    """Where different characters are, of those that nothing is taken for."""
    first = {one: place for place, one in enumerate(text) if one not in "<0OQD1I2Z5S8B6G"}
    return sorted(first.values())[:_SAMPLES]


def _every(windows: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    """All places at which a character may be in its window."""
    return sliding_window_view(windows, (CELL_HEIGHT // step, CELL_WIDTH // step), (1, 2))


def _normal(cells: npt.NDArray[np.generic]) -> Shapes:
    """Pixels in a row; their mean is 0, and their length as a vector 1: the product of two says how alike they are."""
    flat = cells.reshape(*cells.shape[:-2], -1).astype(np.float32)
    flat -= flat.mean(-1, keepdims=True)
    shapes: Shapes = flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-6)
    return shapes
