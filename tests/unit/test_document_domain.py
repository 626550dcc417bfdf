"""Which files are taken, and how they are shown."""

import io
import secrets
from collections.abc import Callable

import pytest
from PIL import Image
from pypdf import PdfWriter

from services.document import decoder
from services.document.domain import (
    LONGEST_FILE_NAME,
    SIGNATURE_BYTES,
    Inspection,
    UnsupportedFileType,
    content_type_of,
    display_name,
)


def image(kind: str, size: tuple[int, int] = (400, 300)) -> bytes:
    file = io.BytesIO()
    # Not Image.effect_noise: it draws from C's rand(), which gRPC seeds anew, so that images repeat.
    Image.frombytes("RGB", size, secrets.token_bytes(3 * size[0] * size[1])).save(file, kind)
    return file.getvalue()


def pdf(pages: int = 1, side: float = 300, password: str = "") -> bytes:
    file, writer = io.BytesIO(), PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(side, 2 * side)
    if password:
        writer.encrypt(password)
    writer.write(file)
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "image/jpeg": lambda: image("JPEG"),
    "image/png": lambda: image("PNG"),
    "image/webp": lambda: image("WEBP"),
    "image/tiff": lambda: image("TIFF"),
    "application/pdf": pdf,
}


@pytest.mark.parametrize("content_type", FILES)
def test_a_file_is_known_by_its_first_bytes_and_opens(content_type: str) -> None:
    file = FILES[content_type]()
    assert content_type_of(file[:SIGNATURE_BYTES]) == content_type
    assert decoder.inspect(io.BytesIO(file), content_type) == Inspection(shorter_side=300)


@pytest.mark.parametrize("content_type", FILES)
def test_a_file_that_is_cut_off_cannot_be_read(content_type: str) -> None:
    file = FILES[content_type]()
    assert decoder.inspect(io.BytesIO(file[: len(file) // 3]), content_type).problem


@pytest.mark.parametrize(
    "beginning",
    [b"", b"\xff\xd8", b"GIF89a......", b"<svg xmlns=", b"RIFF....WAVE", b"MZ\x90\0", b" %PDF-1.7", b"II+\0"],
)
def test_other_files_are_refused_whatever_they_are_called(beginning: bytes) -> None:
    with pytest.raises(UnsupportedFileType):
        content_type_of(beginning)


def test_an_image_that_unpacks_to_too_many_pixels_is_not_unpacked() -> None:
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    assert decoder.inspect(bomb, "image/png").problem == "It has more than 40 million pixels."


def test_a_pdf_needs_a_page_and_no_password() -> None:
    assert decoder.inspect(io.BytesIO(pdf(pages=0)), "application/pdf").problem
    assert decoder.inspect(io.BytesIO(pdf(password="secret")), "application/pdf").problem


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("passport.jpg", "passport.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\scan.pdf", "scan.pdf"),
        ("a\0b\r\nc\x1b[31m.jpg", "abc[31m.jpg"),
        ("gpj.\u202eexe.jpg\u2066\u200f", "gpj.exe.jpg"),
        ("Ausweis für Jürgen 旅券.png", "Ausweis für Jürgen 旅券.png"),
        ("  .hidden. ", "hidden"),
        ("..", "document"),
        ("folder/", "document"),
        ("", "document"),
        ("x" * 500, "x" * LONGEST_FILE_NAME),
        ("x" * 500 + ".jpeg", "x" * (LONGEST_FILE_NAME - 5) + ".jpeg"),
        ("a." + "x" * 500, "a." + "x" * (LONGEST_FILE_NAME - 2)),
        ("a" + "\u0301" * 500 + ".png", "á" + "\u0301" * (LONGEST_FILE_NAME - 5) + ".png"),
        ("e\u0301.png", "é.png"),
        ("CON", "_CON"),
        ("nul.pdf", "_nul.pdf"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ("console.pdf", "console.pdf"),
        ("a\ud800b.png", "ab.png"),
    ],
)
def test_a_file_name_is_shown_without_what_could_mislead(sent: str, shown: str) -> None:
    assert display_name(sent) == shown
