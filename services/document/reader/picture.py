"""Opens files: as far as it takes to know that they can be, or as a picture that can be read."""

import warnings
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, ImageOps

if TYPE_CHECKING:
    from pypdfium2 import PdfPage

    from services.document.reader.models import Grey

MOST_PIXELS = 40_000_000
"""An A4 page at 600 dots per inch has 35 million. A pixel takes up to 16 bytes while a file is decoded."""
_LARGE = 2500
"""Pixels of the longer side that are enough to read any document that fills a picture."""
_DOTS_PER_POINT = 300 / 72


class TooManyPixels(Exception):
    """It would take too much memory."""


def open_image(file: BinaryIO, content_type: str, *, read: bool) -> "tuple[float, Grey | None]":
    """Decodes all of an image. Returns its shorter side in pixels and, to be read, the image as it is to be looked at.

    Raises TooManyPixels, and whatever Pillow raises when it is broken.
    """
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        with Image.open(file, formats=[content_type.removeprefix("image/").upper()]) as image:
            shorter, longer = sorted(image.size)
            if read and longer >= 2 * _LARGE:
                image.draft("L", (_LARGE * shorter // longer, _LARGE * shorter // longer))
            image.load()
            return shorter, _upright(image) if read else None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise TooManyPixels from error


def _upright(image: Image.Image) -> "Grey":
    import numpy as np  # noqa: PLC0415  # only for those who read

    times = max(image.size) // _LARGE
    if times >= 2 and not image.mode.startswith(("P", "I;")):
        image = image.reduce(times)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits
        deep = np.asarray(image).astype(np.float32)
        return (deep * (255 / max(255.0, float(deep.max())))).clip(0, 255).astype(np.uint8)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("L"))


def open_pdf(file: BinaryIO, *, read: bool) -> "tuple[float, Grey | None]":
    """Opens the first page. Returns its shorter side in points and, to be read, the page as it is to be looked at.

    Raises whatever PDFium raises when it is broken.
    """
    from pypdfium2 import PdfDocument  # noqa: PLC0415  # only for those who need it

    document = PdfDocument(file)
    page = document[0]
    return min(page.get_size()), _rendered(page) if read else None


def _rendered(page: "PdfPage") -> "Grey":
    import numpy as np  # noqa: PLC0415

    scale = min(_DOTS_PER_POINT, 2 * _LARGE / max(page.get_size()))
    return np.ascontiguousarray(page.render(scale=scale, grayscale=True).to_numpy().squeeze())
