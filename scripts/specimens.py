"""Draws specimens of passports (ICAO 9303 TD3) and identity cards (TD1) that do not exist, and damages them as told.

python -m scripts.specimens "Ada Lovelace" 1990-12-10 passport.png
"""

import io
import random
import secrets
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

OCR_B = Path(__file__).with_name("fonts") / "OCRB.otf"
WIDTH = 900
VALID = timedelta(days=5 * 365)
_PITCH_MM = 2.54
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SPELT_OUT = dict(zip("ÄÆÅÖØŒÜßÞÐĐŁŊĦŦ", "AE AE AA OE OE OE UE SS TH D D L N H T".split(), strict=True))  # noqa: SIM905
_GROUND, _INK, _FAINT = (232, 238, 244), (30, 32, 40), (110, 120, 140)


@dataclass(frozen=True, slots=True)
class Damage:
    """What happens to a page between the printer and the upload. The defaults: nothing."""

    rotation: float = 0
    """Degrees, anticlockwise."""
    perspective: float = 0
    """How far a corner may move, as a share of the page's width."""
    desk: bool = False
    """Whether the page lies on a dark desk that the picture shows around it."""
    light: float = 0
    """How much darker one side is: 0 to 1."""
    contrast: float = 1
    blur: float = 0
    """Radius in pixels of the finished picture."""
    noise: float = 0
    """Standard deviation, of 255."""
    width: int = WIDTH
    """Of the page in pixels. The picture is larger with a desk, and when it is rotated."""
    quality: int | None = None
    """Of the JPEG; without: a PNG."""


@dataclass(frozen=True, slots=True)
class Specimen:
    """A picture, and the lines that are printed on it."""

    content: bytes
    lines: tuple[str, ...]


def passport(display_name: str, born: date, **details: object) -> bytes:
    """Returns a picture of the data page of a passport. See specimen() for the details."""
    return specimen("TD3", display_name, born, **details).content  # type: ignore[arg-type]


def id_card(display_name: str, born: date, **details: object) -> bytes:
    """Returns a picture of the side of an identity card with the machine-readable zone. Details: see specimen()."""
    return specimen("TD1", display_name, born, **details).content  # type: ignore[arg-type]


def specimen(
    size: str,
    display_name: str,
    born: date,
    *,
    surname: str | None = None,
    expires: date | None = None,
    number: str | None = None,
    state: str = "UTO",
    sex: str = "<",
    wrong: str = "",
    zone: bool = True,
    visual: bool = True,
    font: Path = OCR_B,
    damage: Damage = Damage(),
    seed: int | None = None,
) -> Specimen:
    """Draws a specimen of the size TD1 or TD3; without a seed and a number, no two have the same number.

    Args:
        surname: when it is not the last word of the display name.
        expires: five years from now when not given.
        wrong: the field whose check digit is wrong: number, born, expires, optional (TD3 only), composite.
        zone: whether it has a machine-readable zone.
        visual: whether it has anything else: without, it is the zone on white.
    """
    chance = random.Random(secrets.randbits(64) if seed is None else seed)  # noqa: S311  # it draws pictures
    last = surname or display_name.rsplit(maxsplit=1)[-1]
    given = display_name.removesuffix(last).removeprefix(last).strip()
    expires = expires or (datetime.now(UTC) + VALID).date()
    number = number or "".join(chance.choices(_ALPHABET, k=9))
    compose = _td3 if size == "TD3" else _td1
    lines = compose(_mrz_name(last), _mrz_name(given), number, state, sex, f"{born:%y%m%d}", f"{expires:%y%m%d}", wrong)
    visible = (size, last, given, number, state, sex, born, expires)
    page = _page(visible, lines if zone else (), visual, font, damage.width, chance)
    return Specimen(_encode(_damaged(page, damage, chance), damage.quality), lines)


def _td3(
    last: str, given: str, number: str, state: str, sex: str, born: str, expires: str, wrong: str
) -> tuple[str, ...]:
    optional = "<" * 14
    numbers = number.ljust(9, "<") + _digit(number, wrong == "number")
    dates = born + _digit(born, wrong == "born"), expires + _digit(expires, wrong == "expires")
    rest = optional + ("<" if wrong != "optional" else "7")
    composite = _digit(numbers + "".join(dates) + rest, wrong == "composite")
    return (
        f"P<{state}{last}<<{given}".ljust(44, "<")[:44],
        numbers + state.ljust(3, "<") + dates[0] + sex + dates[1] + rest + composite,
    )


def _td1(
    last: str, given: str, number: str, state: str, sex: str, born: str, expires: str, wrong: str
) -> tuple[str, ...]:
    first = "I<" + state.ljust(3, "<") + number.ljust(9, "<") + _digit(number, wrong == "number") + "<" * 15
    dates = born + _digit(born, wrong == "born"), expires + _digit(expires, wrong == "expires")
    composite = _digit(first[5:] + dates[0] + dates[1] + "<" * 11, wrong == "composite")
    second = dates[0] + sex + dates[1] + state.ljust(3, "<") + "<" * 11 + composite
    return first, second, f"{last}<<{given}".ljust(30, "<")[:30]


def _digit(text: str, wrong: bool) -> str:
    """The check digit of ICAO 9303, part 3, 4.9, or another one."""
    values = (0 if one == "<" else _ALPHABET.index(one) for one in text)
    total = sum(value * (7, 3, 1)[place % 3] for place, value in enumerate(values))
    return str((total + 4 * wrong) % 10)


def _mrz_name(name: str) -> str:
    """Letters of the Latin alphabet as machine-readable zones have them."""
    spelt = "".join(_SPELT_OUT.get(one.upper(), one) for one in unicodedata.normalize("NFC", name))
    bare = "".join(one for one in unicodedata.normalize("NFKD", spelt.upper()) if not unicodedata.combining(one))
    words = "".join(one for one in bare if one not in "'’.,").replace("-", " ").split()
    return "<".join("".join(one for one in word if "A" <= one <= "Z") for word in words)


def _page(
    visible: tuple[str, str, str, str, str, str, date, date],
    lines: Sequence[str],
    visual: bool,
    font: Path,
    width: int,
    chance: random.Random,
) -> Image.Image:
    millimetres = (125.0, 88.0) if visible[0] == "TD3" else (85.6, 54.0)
    scale = width / millimetres[0]
    height = round(millimetres[1] * scale)
    pitch = _PITCH_MM * scale
    if not visual:
        height = round(pitch * 2 * (len(lines) + 1))
    page = Image.new("RGB", (width, height), _GROUND if visual else (255, 255, 255))
    draw = ImageDraw.Draw(page)
    if visual:
        _guilloche(draw, page.size, chance)
        _visual_zone(draw, visible, page.size, scale, small=visible[0] == "TD1")
    face, cell = _face(font, pitch)
    left = (width - pitch * len(lines[0])) / 2 if lines else 0
    for row, line in enumerate(lines):
        y = height - pitch * (1.1 + 1.67 * (len(lines) - 1 - row))
        for place, one in enumerate(line):
            draw.text((left + pitch * place + (pitch - cell) / 2, y), one, font=face, fill=_INK, anchor="ls")
    return page


def _guilloche(draw: ImageDraw.ImageDraw, size: tuple[int, int], chance: random.Random) -> None:
    width, height = size
    across = np.linspace(0, width, 60)
    for _ in range(2):
        colour = tuple(chance.randrange(190, 225) for _ in range(3))
        swing, waves, phase = chance.uniform(0.04, 0.12) * height, chance.uniform(1.5, 4), chance.uniform(0, 6)
        for shift in np.linspace(-0.1, 1.1, 22):
            down = shift * height + swing * np.sin(waves * 6.28 * across / width + phase + 2 * shift)
            draw.line(np.stack([across, down], 1).ravel().tolist(), fill=colour, width=1)


def _visual_zone(
    draw: ImageDraw.ImageDraw,
    visible: tuple[str, str, str, str, str, str, date, date],
    size: tuple[int, int],
    scale: float,
    small: bool,
) -> None:
    _, last, given, number, state, sex, born, expires = visible
    label, text = _plain(1.7 * scale if small else 2.1 * scale), _plain(2.4 * scale if small else 3.6 * scale)
    photo, top, step = (22 * scale, 4 * scale, 5 * scale) if small else (35 * scale, 10 * scale, 8 * scale)
    draw.rectangle((5 * scale, top, 5 * scale + photo, top + 1.25 * photo), fill=(205, 210, 214))
    middle = 5 * scale + photo / 2
    draw.ellipse((middle - photo / 5, top + photo / 4, middle + photo / 5, top + photo * 0.8), fill=(150, 130, 120))
    draw.ellipse((middle - photo / 3, top + photo * 0.85, middle + photo / 3, top + 1.6 * photo), fill=(90, 95, 110))
    draw.rectangle((5 * scale, top + 1.25 * photo, 5 * scale + photo, top + 1.8 * photo), fill=_GROUND)
    draw.text((5 * scale, top / 4), "UTOPIA  SPECIMEN" if not small else "UTOPIA  IDENTITY CARD", font=label, fill=_INK)
    fields = (
        ("Type / Code / No.", f"{'I' if small else 'P'}   {state}   {number}"),
        ("Surname / Nom", _ascii(last)),
        ("Given names / Prenoms", _ascii(given)),
        ("Date of birth / Date de naissance", f"{born:%d %b %Y}".upper()),
        ("Sex / Sexe", "X" if sex == "<" else sex),
        ("Date of expiry / Date d'expiration", f"{expires:%d %b %Y}".upper()),
    )
    for row, (name, value) in enumerate(fields):
        x, y = 9 * scale + photo, top + row * step
        draw.text((x, y), name, font=label, fill=_FAINT)
        draw.text((x, y + 0.27 * step), value, font=text, fill=_INK)


def _ascii(name: str) -> str:
    """All that the font of Pillow can show."""
    return unicodedata.normalize("NFKD", name.upper()).encode("ascii", "ignore").decode()


@cache
def _plain(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@cache
def _face(font: Path, pitch: float) -> tuple[ImageFont.FreeTypeFont, float]:
    """A fixed-pitch font whose characters are as far apart as wanted, or of OCR-B's height when they are narrower."""
    wide = ImageFont.truetype(font, 1000).getlength("0") / 1000
    face = ImageFont.truetype(font, pitch / max(wide, 0.66))
    return face, face.getlength("0")


def _damaged(page: Image.Image, damage: Damage, chance: random.Random) -> Image.Image:
    if damage.desk:
        width, height = (round(side * 1.15) for side in page.size)
        desk = Image.new("RGB", (width, height), (92, 70, 52))
        desk.paste(page, ((width - page.width) // 2, (height - page.height) // 2))
        page = desk
    around = (92, 70, 52) if damage.desk else (255, 255, 255)
    if damage.perspective:
        page = _tilted(page, damage.perspective, around, chance)
    if damage.rotation:
        page = page.rotate(damage.rotation, Image.Resampling.BICUBIC, expand=True, fillcolor=around)
    if damage.blur:
        page = page.filter(ImageFilter.GaussianBlur(damage.blur))
    if damage.light or damage.noise or damage.contrast != 1:
        page = _lit(page, damage, chance)
    return page


def _tilted(page: Image.Image, share: float, around: tuple[int, int, int], chance: random.Random) -> Image.Image:
    width, height = page.size
    room = round(share * width)
    larger = Image.new("RGB", (width + 2 * room, height + 2 * room), around)
    larger.paste(page, (room, room))
    corners = [(room, room), (room, room + height), (room + width, room + height), (room + width, room)]
    moved = [(x + chance.uniform(-room, room), y + chance.uniform(-room, room)) for x, y in corners]
    rows = [row for (u, v), (x, y) in zip(corners, moved, strict=True) for row in _homography(x, y, u, v)]
    known = np.array(corners, float).ravel()
    return larger.transform(
        larger.size,
        Image.Transform.PERSPECTIVE,
        np.linalg.solve(np.array(rows, float), known).tolist(),
        Image.Resampling.BICUBIC,
        fillcolor=around,
    )


def _homography(x: float, y: float, u: float, v: float) -> list[list[float]]:
    return [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]


def _lit(page: Image.Image, damage: Damage, chance: random.Random) -> Image.Image:
    pixels = np.asarray(page, np.float32)
    pixels = 128 + (pixels - 128) * damage.contrast
    across = np.linspace(1, 1 - damage.light, page.width, dtype=np.float32)
    pixels = pixels * across[None, :, None]
    if damage.noise:
        grain = np.random.default_rng(chance.getrandbits(32)).standard_normal(pixels.shape[:2], np.float32)
        pixels = pixels + damage.noise * grain[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _encode(page: Image.Image, quality: int | None) -> bytes:
    file = io.BytesIO()
    if quality is None:
        page.save(file, "PNG", compress_level=3)
    else:
        page.save(file, "JPEG", quality=quality)
    return file.getvalue()


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(passport(sys.argv[1], date.fromisoformat(sys.argv[2])))
