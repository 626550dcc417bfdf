"""The machine-readable zone is read off pictures of documents, as it is printed: in whatever state they come."""

import io
import os
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from scripts.specimens import Damage, Specimen, specimen
from services.document import decoder
from services.document.domain import Inspection
from services.document.inspection import Inspector
from services.document.objects import Objects, open_objects

BORN = date(1990, 12, 10)

DAMAGES = {
    "clean": Damage(),
    "upside down": Damage(rotation=180),
    "on its side": Damage(rotation=92, desk=True),
    "askew": Damage(rotation=-12, desk=True),
    "photographed": Damage(
        rotation=4, perspective=0.05, desk=True, light=0.4, noise=6, blur=0.6, quality=60, width=1200
    ),
    "small": Damage(width=600),
    "large": Damage(width=2400),
    "noisy": Damage(noise=20),
    "faint": Damage(contrast=0.3),
    "compressed": Damage(quality=25),
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return open_objects(tmp_path_factory.mktemp("objects").as_uri())


@pytest.fixture(scope="module")
async def inspector(objects: Objects) -> AsyncIterator[Inspector]:
    yield Inspector(objects)


async def inspect(
    inspector: Inspector, objects: Objects, content: bytes, content_type: str = "image/png", *, read: bool = True
) -> Inspection:
    await objects.put("doc_1", io.BytesIO(content))
    return await inspector.inspect("doc_1", content_type, read=read)


def content_type(content: bytes) -> str:
    return "image/jpeg" if content.startswith(b"\xff\xd8") else "image/png"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("size", ["TD1", "TD3"])
async def test_a_zone_is_read_as_it_is_printed(inspector: Inspector, objects: Objects, size: str, damage: str) -> None:
    printed = specimen(size, "Zoë Iqbal-O'Brien", BORN, number="O0I1Z2S5B", damage=DAMAGES[damage], seed=1)
    found = await inspect(inspector, objects, printed.content, content_type(printed.content))
    assert (found.problem, found.mrz_found, found.mrz) == ("", True, printed.lines)


@pytest.mark.parametrize("wrong", ["number", "born", "expires", "composite"])
async def test_a_wrong_check_digit_is_read_and_not_mended(inspector: Inspector, objects: Objects, wrong: str) -> None:
    right, printed = (
        specimen("TD3", "Ada Lovelace", BORN, number="X0O81B5S2", wrong=one, seed=2) for one in ("", wrong)
    )
    assert right.lines != printed.lines
    assert (await inspect(inspector, objects, printed.content)).mrz == printed.lines


async def test_a_zone_that_nobody_could_read_is_found_but_not_read(inspector: Inspector, objects: Objects) -> None:
    blurred = specimen("TD3", "Ada Lovelace", BORN, damage=Damage(blur=4), seed=3)
    found = await inspect(inspector, objects, blurred.content)
    assert (found.problem, found.mrz) == ("", ())


async def test_a_document_without_a_zone_has_none(inspector: Inspector, objects: Objects) -> None:
    found = await inspect(inspector, objects, specimen("TD3", "Ada Lovelace", BORN, zone=False, seed=4).content)
    assert found == Inspection(shorter_side=634)


def encoded(printed: Specimen, mode: str, kind: str) -> bytes:
    image, file = Image.open(io.BytesIO(printed.content)).convert("RGB"), io.BytesIO()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "RGBA":
        image.putalpha(255)
        clear = Image.new("RGBA", (image.width + 100, image.height + 100), (0, 0, 0, 0))
        clear.paste(image, (50, 50))
        image = clear
    else:
        image = image.convert(mode)
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "PNG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("I;16", "PNG"),
        ("CMYK", "JPEG"),
        ("1", "TIFF"),
        ("RGB", "WEBP"),
        ("RGB", "PDF"),
    ],
)
async def test_every_kind_of_picture_is_read(inspector: Inspector, objects: Objects, mode: str, kind: str) -> None:
    printed = specimen("TD3", "Ada Lovelace", BORN, number="AB1234567", seed=5)
    media = "application/pdf" if kind == "PDF" else f"image/{kind.lower()}"
    assert (await inspect(inspector, objects, encoded(printed, mode, kind), media)).mrz == printed.lines


async def test_a_camera_s_note_on_how_it_was_held_is_heeded(inspector: Inspector, objects: Objects) -> None:
    printed, file, exif = specimen("TD3", "Ada Lovelace", BORN, seed=6), io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(printed.content)).rotate(90, expand=True).save(file, "JPEG", exif=exif)
    assert (await inspect(inspector, objects, file.getvalue(), "image/jpeg")).mrz == printed.lines


async def test_a_file_that_needs_no_reading_is_only_opened(inspector: Inspector, objects: Objects) -> None:
    found = await inspect(inspector, objects, specimen("TD3", "Ada Lovelace", BORN, seed=7).content, read=False)
    assert found == Inspection(shorter_side=634)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is shown what such a process has")
async def test_what_reads_has_no_threads_no_secrets_and_ends_with_its_inspector(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "secret")
    before = set(psutil.Process().children())
    inspector = Inspector(objects)
    await inspect(inspector, objects, specimen("TD3", "Ada Lovelace", BORN, seed=8).content)
    (process,) = set(psutil.Process().children()) - before
    assert process.num_threads() == 1  # it forks
    assert "secret" not in process.environ().values()
    assert not process.net_connections()
    del inspector
    assert not process.is_running()


async def test_a_decoder_that_was_killed_is_replaced(objects: Objects) -> None:
    before = set(psutil.Process().children())
    inspector, content = Inspector(objects), specimen("TD3", "Ada Lovelace", BORN, seed=9).content
    await inspect(inspector, objects, content, read=False)
    (process,) = set(psutil.Process().children()) - before
    process.kill()
    process.wait()
    assert (await inspect(inspector, objects, content, read=False)).shorter_side == 634


@pytest.mark.parametrize("media", ["image/png", "image/jpeg", "image/tiff", "image/webp", "application/pdf"])
async def test_a_broken_file_is_no_failure(inspector: Inspector, objects: Objects, media: str) -> None:
    assert (await inspect(inspector, objects, os.urandom(5000), media)).problem == f"It cannot be read as {media}."


async def test_a_page_as_large_as_a_house_is_opened(inspector: Inspector, objects: Objects) -> None:
    file = io.BytesIO()
    Image.new("L", (200, 200), 255).save(file, "PDF", resolution=1)
    assert (await inspect(inspector, objects, file.getvalue(), "application/pdf")) == Inspection(shorter_side=14400)


def test_a_picture_with_too_many_pixels_is_not_decoded() -> None:
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    assert decoder.inspect(file, "image/png", read=True).problem == "It has more than 40 million pixels."


def test_drawn_characters_ship_with_the_reader() -> None:
    assert Path(decoder.__file__).parent.joinpath("reader", "glyphs.png").is_file()
