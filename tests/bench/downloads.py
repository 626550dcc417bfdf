"""What downloads cost: memory of each process while many clients download a large file, throughput, and digests.

Usage: python -m tests.bench.downloads [DOWNLOADS [MIB [2]]]. Ends with 2 for HTTP/2. Has a stack of its own.
Measures once with clients that read as fast as they can, and once with clients that begin and then do not read on.
"""

import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import uvloop

from scripts.stack import lifecycle, supervision
from scripts.stack.folder import run_folder
from tests.bench.uploads import MIB, PROCESSES, Sampler
from tests.edge.people import People
from tests.edge.stack import Stack

STOPPED_SECONDS = 20.0
_BLOCK = os.urandom(MIB)


def main(downloads: int, mib: int, http2: bool) -> None:
    """Measures and prints."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-bench-")))
    try:
        settings = lifecycle.up(folder, 0, 0, wishes={"MAX_UPLOAD_BYTES": str((mib + 1) * MIB)})
        stack = Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
        with ExitStack() as clients:
            person = People(stack, clients).sign_up()
            uvloop.run(_measure(stack, str(person.client.headers["authorization"]), downloads, mib, http2))
    finally:
        lifecycle.clean(folder)


async def _measure(stack: Stack, token: str, downloads: int, mib: int, http2: bool) -> None:
    async with httpx.AsyncClient(
        base_url=stack.edge_tls_url if http2 else stack.edge_url,
        http2=http2,
        verify=False,  # noqa: S501  # nothing here is secret
        trust_env=False,
        timeout=600,
        limits=httpx.Limits(max_connections=downloads),
        headers={"authorization": token},
    ) as client:
        small, large = await _upload(client, 1), await _upload(client, mib)
        await asyncio.gather(*(_download(client, *small) for _ in range(4)))  # what is loaded at the first is no growth
        with _sampler(stack) as sampler:
            started = time.perf_counter()
            right = await asyncio.gather(*(_download(client, *large) for _ in range(downloads)))
            seconds = time.perf_counter() - started
        speed, wrong = downloads * mib / seconds, right.count(False)
        print(f"{downloads} of {mib} MiB in {seconds:.1f} s, {speed:.0f} MiB/s; {wrong} wrong")
        _report(sampler)
        if http2:
            return  # all streams share a connection: who does not read stops the others, too
        with _sampler(stack) as sampler:
            await asyncio.gather(*(_begin(client, large[0]) for _ in range(downloads)))
        print(f"{downloads} that begin, and do not read for {STOPPED_SECONDS:g} s")
        _report(sampler)


def _sampler(stack: Stack) -> Sampler:
    return Sampler({name: supervision.pid(stack.settings.folder, name) for name in PROCESSES})


def _report(sampler: Sampler) -> None:
    for name in PROCESSES:
        before, peak = sampler.before[name] / MIB, sampler.peak[name] / MIB
        print(f"  {name:<14}{before:8.1f} MiB before, {peak:8.1f} at most: {peak - before:+.1f}")


async def _upload(client: httpx.AsyncClient, mib: int) -> tuple[str, str]:
    """Returns where a file of that size is downloaded, and its SHA-256."""

    async def body() -> AsyncIterator[bytes]:
        yield (
            b'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\nPROOF_OF_ADDRESS\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="large.png"\r\n\r\n\x89PNG\r\n\x1a\n'
        )
        for _ in range(mib):
            yield _BLOCK
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await client.post("/api/v1/documents/upload", content=body(), headers=headers)
    document = answer.raise_for_status().json()
    return f"/api/v1/documents/{document['id']}/content", document["sha256"]


async def _download(client: httpx.AsyncClient, path: str, sha256: str) -> bool:
    content = hashlib.sha256()
    async with client.stream("GET", path) as answer:
        async for piece in answer.aiter_raw():
            content.update(piece)
    return content.hexdigest() == sha256


async def _begin(client: httpx.AsyncClient, path: str) -> None:
    async with client.stream("GET", path) as answer:
        await anext(answer.aiter_raw())
        await asyncio.sleep(STOPPED_SECONDS)


if __name__ == "__main__":
    arguments = [int(one) for one in sys.argv[1:]]
    main(arguments[0] if arguments else 32, arguments[1] if len(arguments) > 1 else 256, arguments[2:] == [2])
