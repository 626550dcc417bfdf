"""Finds the lines of text in a picture, and which of them may be a machine-readable zone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from services.document.reader.models import LINE_HEIGHT, SIDES, Grey, Models

_LIKELY = 0.3
_UNCLIP = 1.5
"""The network marks the middle of lines. This much of area / circumference is missing on each side."""
_SLENDER = 9.0
"""A line of a zone is at least as many times as long as it is high: of TD1, in a narrow font and a small picture."""
_MOST_LINES = 40
_LARGEST = 1.3
_HEIGHT = 1.5
"""Of a line with the space around it, in cells."""


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line of text is. Its text may run either way along its direction."""

    x: float
    y: float
    """Of the middle, in pixels."""
    length: float
    height: float
    angle: float
    """Of the direction, in radians clockwise: from -pi/2 to pi/2."""

    def turned(self) -> "Line":
        """The same line, to be read the other way round."""
        return Line(self.x, self.y, self.length, self.height, self.angle + math.pi)

    def along(self, other: "Line") -> "Line":
        """Another line, in the direction of this one."""
        return other if math.cos(other.angle - self.angle) > 0 else other.turned()

    def times(self, scale: float) -> "Line":
        """The same line, in a picture that is so much larger."""
        return Line(self.x * scale, self.y * scale, self.length * scale, self.height * scale, self.angle)

    def at(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Returns the points that are so far along the line, as shares of its length."""
        along = (shares - 0.5) * self.length
        return np.stack([self.x + along * math.cos(self.angle), self.y + along * math.sin(self.angle)], 1)

    def beside(self, other: "Line") -> tuple[float, float]:
        """How far the middle of another is along this line, and below it."""
        x, y = other.x - self.x, other.y - self.y
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return x * cosine + y * sine, y * cosine - x * sine


def find(models: Models, picture: Grey, longer_side: int) -> list[Line]:
    """Returns the long lines of text in a picture, the longest first."""
    scale = longer_side / max(picture.shape)
    height, width = (max(SIDES, round(side * scale / SIDES) * SIDES) for side in picture.shape)
    smaller = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    likely = (models.find(np.asarray(smaller, np.uint8)) > _LIKELY).astype(np.uint8)
    contours, _ = cv2.findContours(likely, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    across, down = picture.shape[1] / width, picture.shape[0] / height
    lines = [_line(contour * np.array([across, down])) for contour in contours if len(contour) > 3]
    slender = [line for line in lines if line.length > _SLENDER * line.height]
    return sorted(slender, key=lambda line: -line.length)[:_MOST_LINES]


def _line(contour: npt.NDArray[Any]) -> Line:
    (x, y), (width, height), degrees = cv2.minAreaRect(contour.astype(np.float32))
    if width < height:
        width, height, degrees = height, width, degrees + 90
    more = _UNCLIP * width * height / max(1.0, 2 * (width + height))
    angle = math.radians((degrees + 90) % 180 - 90)
    return Line(x, y, width + 2 * more, height + 2 * more, angle)


def zones(lines: Sequence[Line]) -> Iterator[tuple[Line, ...]]:
    """Yields groups of two or three lines below each other that are equally long, from top to bottom.

    Of lines that run downwards, top is right.
    """
    seen = set()
    for line in lines:
        beside = [line.along(other) for other in lines if _belongs(line, other)]
        group = tuple(sorted(beside, key=lambda other: line.beside(other)[1]))
        if len(group) >= 2 and group not in seen:
            seen.add(group)
            yield _alike(group)


def _alike(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Lines of the height that the characters of a zone have for its length. Boxes of single lines are less exact."""
    height = _HEIGHT * lines[0].length / (44 if len(lines) == 2 else 30)
    return tuple(replace(line, height=height) for line in lines)


def _belongs(line: Line, other: Line) -> bool:
    along, below = line.beside(other)
    turn = abs(math.remainder(other.angle - line.angle, math.pi))
    return (
        turn < math.radians(4)
        and abs(other.length / line.length - 1) < 0.12
        and abs(along) < 0.08 * line.length
        and abs(below) < 0.2 * line.length
    )


def shrunk(picture: Grey, lines: Sequence[Line]) -> tuple[Grey, list[Line]]:
    """Makes a picture smaller when its lines are so large that pixels of them would be left out."""
    scale = _LARGEST * LINE_HEIGHT / max(line.height for line in lines)
    if scale >= 1:
        return picture, list(lines)
    smaller = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, np.uint8), [line.times(scale) for line in lines]


def smoothed(picture: Grey, radius: float) -> Grey:
    """Takes noise away, and some sharpness."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), radius), np.uint8) if radius else picture


def cut(picture: Grey, line: Line, pixels: int = LINE_HEIGHT) -> Grey:
    """Returns a line as a picture of its own, upright, so many pixels high."""
    scale = pixels / line.height
    width = max(pixels, round(line.length * scale))
    cosine, sine = math.cos(line.angle) / scale, math.sin(line.angle) / scale
    half = width / 2, pixels / 2
    back = np.array(
        [
            [cosine, -sine, line.x - half[0] * cosine + half[1] * sine],
            [sine, cosine, line.y - half[0] * sine - half[1] * cosine],
        ]
    )
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(picture, back, (width, pixels), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
