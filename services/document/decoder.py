"""Opens one file in a process of its own: one that is made to crash, fill memory or never end hurts only itself.

Usage: python -m services.document.decoder <media type> < file. Prints the Inspection as JSON.
"""

import dataclasses
import json
import logging
import resource
import sys
import warnings
from typing import BinaryIO

from PIL import Image

from services.document.domain import PDF, Inspection

CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30
MOST_PIXELS = 40_000_000
"""An A4 page at 600 dots per inch has 35 million. A pixel takes up to 16 bytes while a file is decoded."""


def inspect(file: BinaryIO, content_type: str) -> Inspection:
    """Opens a file and looks at it whole (an image) or at its first page (a PDF)."""
    try:
        return _inspect_pdf(file) if content_type == PDF else _inspect_image(file, content_type)
    except Exception:  # whatever the libraries make of a broken file
        return Inspection(f"It cannot be read as {content_type}.")


def _inspect_image(file: BinaryIO, content_type: str) -> Inspection:
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        with Image.open(file, formats=[content_type.removeprefix("image/").upper()]) as image:
            image.load()
            return Inspection(shorter_side=min(image.size))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Inspection(f"It has more than {MOST_PIXELS // 10**6} million pixels.")


def _inspect_pdf(file: BinaryIO) -> Inspection:
    from pypdfium2 import PdfDocument  # noqa: PLC0415  # only for those who need it

    document = PdfDocument(file)
    if not len(document):
        return Inspection("It has no page.")
    return Inspection(shorter_side=min(document[0].get_size()))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    json.dump(dataclasses.asdict(inspect(sys.stdin.buffer, sys.argv[1])), sys.stdout)
