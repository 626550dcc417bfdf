"""States how well machine-readable zones are read: python -m tests.bench.reading_accuracy [specimens per row, 20]

Each row is a kind of damage; half of the specimens are passports, half cards, every third has a wrong check digit.
Exact: all is read as it is printed. Unreadable: nothing is said. Wrong: something else is said; plausible, when all its
check digits are right, and it so passes for what it is not. Seconds are of processor time.
"""

import io
import random
import sys
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from scripts.specimens import OCR_B, Damage, specimen
from services.document import decoder
from services.document.verification import mrz

_FONTS = Path("/usr/share/fonts/truetype")
ROWS: dict[str, tuple[Damage, Path]] = {
    "none": (Damage(), OCR_B),
    "turned by 90°": (Damage(rotation=90), OCR_B),
    "upside down": (Damage(rotation=180), OCR_B),
    "askew by 12°, on a desk": (Damage(rotation=-12, desk=True), OCR_B),
    "perspective of 6 %, on a desk": (Damage(perspective=0.06, desk=True), OCR_B),
    "noise of 20": (Damage(noise=20), OCR_B),
    "noise of 35": (Damage(noise=35), OCR_B),
    "blur of 1 pixel": (Damage(blur=1), OCR_B),
    "blur of 2 pixels": (Damage(blur=2), OCR_B),
    "JPEG of quality 30": (Damage(quality=30), OCR_B),
    "JPEG of quality 15": (Damage(quality=15), OCR_B),
    "contrast of 0.3": (Damage(contrast=0.3), OCR_B),
    "light from one side": (Damage(light=0.7), OCR_B),
    "600 pixels wide": (Damage(width=600), OCR_B),
    "480 pixels wide": (Damage(width=480), OCR_B),
    "4000 pixels wide": (Damage(width=4000, quality=85), OCR_B),
    "photograph": (
        Damage(rotation=6, perspective=0.04, desk=True, light=0.4, noise=8, blur=0.7, quality=50, width=1200),
        OCR_B,
    ),
    "DejaVu Sans Mono": (Damage(), _FONTS / "dejavu/DejaVuSansMono.ttf"),
    "DejaVu Sans Mono, photograph": (
        Damage(rotation=6, desk=True, noise=8, blur=0.7, quality=50, width=1200),
        _FONTS / "dejavu/DejaVuSansMono.ttf",
    ),
    "Liberation Mono": (Damage(), _FONTS / "liberation/LiberationMono-Regular.ttf"),
}
_GIVEN = ("Ada", "Zoë", "Jean-Luc", "Maria del Carmen", "Ignatius", "Björk", "Xavier", "Quentin", "Olga")
_LAST = ("Lovelace", "Groß", "Oboe", "García-Ibáñez", "Quinn", "Mallory", "O'Dowd", "Wu", "Zbigniew", "Vance")
_WRONG = ("number", "born", "expires", "composite")


@dataclass
class Count:
    """How the specimens of a row came out."""

    exact: int = 0
    unreadable: int = 0
    wrong: int = 0
    plausible: int = 0
    characters: int = 0
    characters_right: int = 0
    seconds: float = 0.0


def measure(damage: Damage, font: Path, specimens: int) -> Count:
    """Draws specimens, and reads them."""
    count = Count()
    for seed in range(specimens):
        chance = random.Random(seed)  # noqa: S311  # it draws pictures
        printed = specimen(
            ("TD3", "TD1")[seed % 2],
            f"{chance.choice(_GIVEN)} {chance.choice(_LAST)}",
            date(1940, 1, 1) + timedelta(days=chance.randrange(24000)),
            expires=date(2027, 1, 1) + timedelta(days=chance.randrange(3000)),
            sex=chance.choice("FM<"),
            state=chance.choice(("UTO", "D", "FRA", "POL")),
            wrong=chance.choice(_WRONG) if seed % 3 == 2 else "",
            font=font,
            damage=damage,
            seed=seed,
        )
        content_type = "image/png" if damage.quality is None else "image/jpeg"
        start = time.process_time()
        read = decoder.inspect(io.BytesIO(printed.content), content_type, read=True).mrz
        count.seconds += time.process_time() - start
        count.exact += read == printed.lines
        count.unreadable += not read
        if read:
            pairs = list(zip("".join(read), "".join(printed.lines), strict=True))
            count.characters += len(pairs)
            count.characters_right += sum(one == other for one, other in pairs)
            if read != printed.lines:
                count.wrong += 1
                zone = mrz.read(read)
                count.plausible += zone is not None and all(field.right for field in zone.fields.values())
                print("   ", printed.lines, read, file=sys.stderr)
    return count


def main(specimens: int) -> None:
    """Prints the table."""
    print("| damage | exact | unreadable | wrong | plausible | characters right, of those read | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, (damage, font) in ROWS.items():
        if font.exists():
            count = measure(damage, font, specimens)
            share = f"{count.characters_right / count.characters:.2%}" if count.characters else "-"
            print(
                f"| {name} | {count.exact}/{specimens} | {count.unreadable} | {count.wrong} | {count.plausible} "
                f"| {share} | {count.seconds / specimens:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
