"""What uploads cost: memory of each process while many large files arrive at once, throughput, and digests.

Usage: python -m tests.bench.uploads [UPLOADS [MIB [2]]]. Ends with 2 for HTTP/2. Starts a stack of its own and ends it.
"""

import asyncio
import hashlib
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import uvloop

from scripts.stack import lifecycle, supervision
from scripts.stack.folder import run_folder
from scripts.stack.settings import SERVERS
from tests.edge.people import People, Person
from tests.edge.stack import Stack

MIB = 1024 * 1024
PROCESSES = ("envoy", *SERVERS, "postgres", "nats")
SAMPLE_SECONDS = 0.1
_BLOCK = secrets.token_bytes(MIB)
_HEAD = (
    b'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\nPROOF_OF_ADDRESS\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="large.png"\r\n\r\n'
)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def main(uploads: int, mib: int, http2: bool) -> None:
    """Measures and prints."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-bench-")))
    try:
        wishes = {"MAX_UPLOAD_BYTES": str((mib + 1) * MIB), "MAX_UPLOADS_PER_USER": str(uploads)}
        wishes |= {
            "MAX_UPLOADS": str(uploads),
            **{name: os.environ[name] for name in ("TMPDIR",) if name in os.environ},
        }
        settings = lifecycle.up(folder, edge_port=0, edge_tls_port=0, wishes=wishes)
        stack = Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
        with ExitStack() as clients:
            person = People(stack, clients).sign_up()
            uvloop.run(_upload_all(stack, person, 4, 1, http2))  # what is loaded at the first upload is no growth
            _measure(stack, person, uploads, mib, http2)
    finally:
        lifecycle.clean(folder)


def _measure(stack: Stack, person: Person, uploads: int, mib: int, http2: bool) -> None:
    with Sampler({name: supervision.pid(stack.settings.folder, name) for name in PROCESSES}) as sampler:
        started = time.perf_counter()
        wrong = uvloop.run(_upload_all(stack, person, uploads, mib, http2))
        seconds = time.perf_counter() - started
    for name in PROCESSES:
        before, peak = sampler.before[name] / MIB, sampler.peak[name] / MIB
        print(f"{name:<14}{before:8.1f} MiB before, {peak:8.1f} at most: {peak - before:+.1f}")
    print(f"{uploads} of {mib} MiB in {seconds:.1f} s, {uploads * mib / seconds:.0f} MiB/s; {wrong} wrong")


class Sampler:
    """Watches the memory of processes, their children's not counted."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.before = self._resident()
        self.peak = dict(self.before)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(SAMPLE_SECONDS):
            self.peak = {name: max(self.peak[name], size) for name, size in self._resident().items()}

    def _resident(self) -> dict[str, int]:
        return {name: process.memory_info().rss for name, process in self._processes.items()}


async def _upload_all(stack: Stack, person: Person, uploads: int, mib: int, http2: bool) -> int:
    """Returns how many went wrong."""
    content = hashlib.sha256(_SIGNATURE)
    for _ in range(mib):
        content.update(_BLOCK)
    limits = httpx.Limits(max_connections=uploads)
    headers = dict(person.client.headers)
    async with httpx.AsyncClient(
        base_url=stack.edge_tls_url if http2 else stack.edge_url,
        http2=http2,
        verify=False,  # noqa: S501  # nothing here is secret
        trust_env=False,
        timeout=600,
        limits=limits,
        headers=headers,
    ) as client:
        outcomes = await asyncio.gather(*(_upload(client, mib, content.copy()) for _ in range(uploads)))
    return outcomes.count(False)


async def _upload(client: httpx.AsyncClient, mib: int, content: "hashlib._Hash") -> bool:
    ending = secrets.token_bytes(16)
    content.update(ending)
    tail = ending + b"\r\n--b--\r\n"
    length = len(_HEAD) + len(_SIGNATURE) + mib * MIB + len(tail)

    async def body() -> AsyncIterator[bytes]:
        yield _HEAD + _SIGNATURE
        for _ in range(mib):
            yield _BLOCK
        yield tail

    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": str(length)}
    answer = await client.post("/api/v1/documents/upload", content=body(), headers=headers)
    if answer.status_code != 201:
        print(answer.status_code, answer.text[:200])
        return False
    return bool(answer.json()["sha256"] == content.hexdigest())


if __name__ == "__main__":
    arguments = [int(one) for one in sys.argv[1:]]
    main(arguments[0] if arguments else 32, arguments[1] if len(arguments) > 1 else 256, arguments[2:] == [2])
