"""What opens other people's files sees nothing of who has secrets, and what fails there is not the files' fault."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import psutil
import pytest

from scripts.specimens import specimen
from services.document import inspection
from services.document.inspection import DecoderUnavailable, Inspector
from services.document.objects import Objects, open_objects
from services.document.spool import NoScratchSpace
from tests.waiting import eventually

AS_ANYBODY: Sequence[str] = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
"""As a user who may do no more than others, by whatever name."""
ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root is shown what such a process has")

SERVICE = """
import os, runpy, uvloop
from services.runtime import config
config.load = lambda _: None
def run(main):
    main.close()
    print(os.getpid(), flush=True)
    input()
uvloop.run = run
runpy.run_module("services.document", run_name="__main__")
"""
"""The document service up to where it would serve."""
READING = """
import asyncio, io, pathlib, psutil, sys, tempfile
from services.document.inspection import Inspector
from services.document.objects import open_objects
async def main():
    with tempfile.TemporaryDirectory() as folder:
        objects = open_objects(pathlib.Path(folder).as_uri())
        await objects.put("doc_1", io.BytesIO(b"no picture"))
        inspector = Inspector(objects)
        await inspector.inspect("doc_1", "image/png")
        [decoder] = psutil.Process().children()
        print(WHO, flush=True)
        input()
asyncio.run(main())
"""
"""One that has a decoder, and does not hide."""
LOOK = """
import os, sys
for what in ("environ", "mem", "fd/0"):
    try:
        os.close(os.open(f"/proc/{sys.argv[1]}/{what}", os.O_RDONLY))
        print(what)
    except OSError:
        pass
"""


@contextmanager
def started(code: str) -> Iterator[int]:
    """Runs code as anybody. Yields the process id that it prints."""
    command = [*AS_ANYBODY, sys.executable, "-c", code]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "DATABASE_URL": "secret"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.kill()


def seen(pid: int) -> list[str]:
    """What anybody of the same user sees of a process."""
    look = [*AS_ANYBODY, sys.executable, "-c", LOOK, str(pid)]
    return subprocess.run(look, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such protection")
@pytest.mark.parametrize(
    ("code", "visible"),
    [
        (SERVICE, False),
        (READING.replace("WHO", "decoder.pid"), False),
        (READING.replace("WHO", "psutil.Process().pid"), True),
    ],
    ids=["the service", "its decoder", "another process"],
)
def test_others_of_the_same_user_do_not_see_what_the_service_and_its_decoder_know(code: str, visible: bool) -> None:
    with started(code) as pid:
        assert bool(seen(pid)) is visible


@pytest.fixture
async def objects(tmp_path: Path) -> Objects:
    """The store, with a passport, and a file that takes longer than it may."""
    objects = open_objects(tmp_path.as_uri())
    await objects.put("doc_1", io.BytesIO(specimen("TD3", "Ada Lovelace", date(1990, 12, 10), seed=1).content))
    drawing = zlib.compress(b"0 0 m 9 9 l S " * 4_000_000)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R>>"
    parts = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page]
    parts.append(b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(drawing), drawing))
    body = b"".join(b"%d 0 obj%s endobj\n" % one for one in enumerate(parts, 1))
    await objects.put("doc_2", io.BytesIO(b"%PDF-1.4\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF"))
    return objects


@pytest.fixture
async def inspector(objects: Objects) -> Inspector:
    return Inspector(objects)


@pytest.fixture
async def decoder(inspector: Inspector) -> psutil.Process:
    """The decoder of the inspector, which is ready."""
    before = set(psutil.Process().children())
    await inspector.inspect("doc_1", "image/png", read=True)
    [decoder] = set(psutil.Process().children()) - before
    return decoder


@pytest.fixture
async def reading(inspector: Inspector, decoder: psutil.Process) -> AsyncIterator[asyncio.Task[object]]:
    """The other file, which is being read."""
    task = asyncio.create_task(inspector.inspect("doc_2", "application/pdf", read=True))

    async def has_begun() -> bool:
        return bool(decoder.children())

    await eventually(has_begun)
    yield task
    with suppress(asyncio.CancelledError, Exception):
        task.cancel()
        await task


@ONLY_ROOT
@pytest.mark.usefixtures("reading")
async def test_the_process_for_a_file_has_that_file_and_can_write_none(decoder: psutil.Process) -> None:
    [process] = decoder.children()
    open_files = Path(f"/proc/{process.pid}/fd")

    async def has_little_open() -> bool:
        return len(list(open_files.iterdir())) == 3  # the file, where the answer goes, and its log  # noqa: ASYNC240

    await eventually(has_little_open, seconds=2)
    for limit in (psutil.RLIMIT_FSIZE, psutil.RLIMIT_NPROC, psutil.RLIMIT_CORE):
        assert process.rlimit(limit) == (0, 0)


async def test_a_disk_without_room_is_not_the_files_fault(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(NoScratchSpace):
        await inspector.inspect("doc_1", "image/png")


@pytest.mark.parametrize("program", ["/nonexistent", "/bin/false"])
async def test_a_decoder_that_cannot_start_is_not_the_files_fault(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", program)
        with pytest.raises(DecoderUnavailable):
            await inspector.inspect("doc_1", "image/png")

    async def starts_again() -> bool:
        return (await inspector.inspect("doc_1", "image/png")).shorter_side > 0

    await eventually(starts_again)


async def test_a_decoder_that_ends_ends_what_it_began_and_that_is_not_the_files_fault(
    reading: asyncio.Task[object], decoder: psutil.Process
) -> None:
    [process] = decoder.children()
    decoder.kill()
    async with asyncio.timeout(10):  # by itself it takes twice as long
        with pytest.raises(DecoderUnavailable):
            await reading
    await eventually(lambda: _is_gone(process))


async def test_a_process_that_is_killed_while_it_reads_may_have_been_so_for_the_file(
    reading: asyncio.Task[object], decoder: psutil.Process
) -> None:
    [process] = decoder.children()
    process.kill()
    with pytest.raises(ChildProcessError):
        await reading


async def test_a_decoder_that_hangs_is_replaced_and_that_is_not_the_files_fault(
    inspector: Inspector, decoder: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as short:
        short.setattr(inspection, "LONGEST_SECONDS", 0.2)
        short.setattr(inspection, "STOP_SECONDS", 0.2)
        with pytest.raises(DecoderUnavailable):
            await inspector.inspect("doc_1", "image/png")
    await eventually(lambda: _is_gone(decoder))
    assert (await inspector.inspect("doc_1", "image/png")).shorter_side > 0


async def test_a_decoder_that_hangs_does_not_hold_up_who_ends(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(psutil.Process().children())
    inspector = Inspector(objects)
    await inspector.inspect("doc_1", "image/png")
    [decoder] = set(psutil.Process().children()) - before
    decoder.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(inspection, "STOP_SECONDS", 0.2)
    del inspector
    assert not decoder.is_running()


async def _is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
