"""Draws the characters of machine-readable zones as printers draw them, to be compared with what is on a document.

Usage: python -m scripts.glyphs services/document/reader/glyphs.png font ... Each font is a row, each character a cell.
"""

import sys

from PIL import Image, ImageDraw, ImageFont

from services.document.reader.glyphs import CELL_HEIGHT, CELL_WIDTH, PITCH
from services.document.reader.models import ALPHABET

_OVERSIZE = 8


def main(target: str, *fonts: str) -> None:
    """Draws them large, and makes them smaller."""
    width, height = CELL_WIDTH * _OVERSIZE, CELL_HEIGHT * _OVERSIZE
    sheet = Image.new("L", (CELL_WIDTH * len(ALPHABET), CELL_HEIGHT * len(fonts)), "white")
    for row, font in enumerate(fonts):
        face = ImageFont.truetype(font, 1000)
        face = ImageFont.truetype(font, 1000 * PITCH * _OVERSIZE / face.getlength("0"))
        top, bottom = (face.getbbox("H", anchor="ls")[side] for side in (1, 3))
        for column, character in enumerate(ALPHABET):
            cell = Image.new("L", (width, height), "white")
            left = (width - face.getlength(character)) / 2
            ImageDraw.Draw(cell).text((left, (height - top - bottom) / 2), character, "black", face, "ls")
            sheet.paste(
                cell.resize((CELL_WIDTH, CELL_HEIGHT), Image.Resampling.BOX), (column * CELL_WIDTH, row * CELL_HEIGHT)
            )
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
