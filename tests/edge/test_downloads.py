"""Downloads through the real edge, over HTTP/1.1 and HTTP/2: parts, conditions and breaks; and files kept in S3."""

import hashlib
import os
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import h2.exceptions
import httpx
import pytest

from scripts.stack import lifecycle
from scripts.stack.folder import run_folder
from tests.edge.contract.edge import reason_of
from tests.edge.people import People, Person, scan
from tests.edge.stack import Stack
from tests.edge.tap import Tap, tapped
from tests.s3 import BUCKET, S3, running_s3

CONTENT = scan((1800, 1800))
BROKEN = (httpx.RemoteProtocolError, h2.exceptions.InvalidBodyLengthError)
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


class Kept(NamedTuple):
    """A document, its owner, and where its file is downloaded from."""

    owner: Person
    id: str
    path: str


class Archive(NamedTuple):
    """A stack that keeps files in S3, and what is between the two."""

    stack: Stack
    people: People
    s3: S3
    tap: Tap


def keep(people: People) -> Kept:
    owner = people.sign_up()
    document = owner.upload(CONTENT, "façade.png", "PROOF_OF_ADDRESS").json()
    return Kept(owner, document["id"], f"/api/v1/documents/{document['id']}/content")


def client(stack: Stack, person: Person, protocol: str) -> httpx.Client:
    trust, headers = ssl.create_default_context(cafile=stack.edge_ca), {"authorization": token(person)}
    return httpx.Client(
        base_url=stack.edge_tls_url,
        headers=headers,
        verify=trust,
        trust_env=False,
        http2=protocol == "HTTP/2",
        timeout=60,
    )


def token(person: Person) -> str:
    return person.client.headers["authorization"]


@pytest.fixture(scope="module")
def kept(people: People) -> Kept:
    return keep(people)


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-test-")))
    with ExitStack() as stack:
        stack.callback(lifecycle.clean, folder)
        s3 = stack.enter_context(running_s3())
        tap = stack.enter_context(tapped(int(s3.url.rpartition(":")[2])))
        kept_in = {
            "OBJECT_STORE_URL": f"s3://{BUCKET}/drawbridge/files",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{tap.port}",
        }
        settings = lifecycle.up(folder, edge_port=0, edge_tls_port=0, wishes=s3.variables | kept_in)
        running = Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
        yield Archive(running, People(running, stack), s3, tap)


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
def test_a_file_comes_whole_in_part_or_not_at_all_as_it_is_asked_for(stack: Stack, kept: Kept, protocol: str) -> None:
    with client(stack, kept.owner, protocol) as browser:
        whole = browser.get(kept.path)
        assert (whole.http_version, whole.status_code, whole.content) == (protocol, 200, CONTENT)
        assert {name: whole.headers[name] for name in ("content-length", "content-type", "etag", "accept-ranges")} == {
            "content-length": str(len(CONTENT)),
            "content-type": "image/png",
            "etag": ETAG,
            "accept-ranges": "bytes",
        }
        assert whole.headers["content-disposition"].endswith("; filename*=UTF-8''fa%C3%A7ade.png")
        assert (whole.headers["x-content-type-options"], whole.headers["cache-control"]) == (
            "nosniff",
            "private, no-cache",
        )
        assert not [name for name in whole.headers if name in ("x-content-length", "x-http-code", "grpc-status")]

        part = browser.get(kept.path, headers={"range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, CONTENT[1000:2000])
        assert part.headers["content-range"] == f"bytes 1000-1999/{len(CONTENT)}"
        assert part.headers["content-length"] == "1000"

        known = browser.get(kept.path, headers={"if-none-match": whole.headers["etag"]})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", ETAG)
        assert {"content-type", "content-length", "content-disposition"}.isdisjoint(known.headers)

        behind = browser.get(kept.path, headers={"range": "bytes=99999999-"})
        assert (behind.status_code, reason_of(behind)) == (416, "RANGE_NOT_SATISFIABLE")
        assert behind.headers["content-range"] == f"bytes */{len(CONTENT)}"

        other = browser.get(kept.path, headers={"if-match": '"another"'})
        assert (other.status_code, reason_of(other)) == (412, "PRECONDITION_NOT_MET")


@pytest.mark.parametrize("protocol", ["http1.1", "http2"])
def test_curl_goes_on_where_it_was_interrupted(stack: Stack, kept: Kept, tmp_path: Path, protocol: str) -> None:
    file = tmp_path / "document"
    file.write_bytes(CONTENT[:1_234_567])
    command = ["curl", "-sS", "--fail", f"--{protocol}", "--cacert", stack.edge_ca, "-C", "-", "-o", str(file)]
    subprocess.run(
        [*command, "-H", f"authorization: {token(kept.owner)}", stack.edge_tls_url + kept.path],
        check=True,
        timeout=60,
        env={"PATH": os.environ["PATH"]},
    )
    assert file.read_bytes() == CONTENT


def test_only_the_owner_and_officers_download_a_file(people: People, kept: Kept) -> None:
    assert people.officer().client.get(kept.path).content == CONTENT
    stranger = people.sign_up()
    for headers in ({}, {"if-none-match": ETAG}, {"range": "bytes=0-0"}):
        refused = stranger.client.get(kept.path, headers=headers)
        assert (refused.status_code, reason_of(refused)) == (403, "NOT_THE_OWNER")


def test_a_file_that_is_deleted_while_it_is_downloaded_arrives_whole(people: People) -> None:
    kept = keep(people)
    with kept.owner.client.stream("GET", kept.path) as response:
        pieces = response.iter_raw()
        begun = next(pieces)
        assert kept.owner.client.delete(kept.path.removesuffix("/content")).status_code == 204
        assert begun + b"".join(pieces) == CONTENT
    gone = kept.owner.client.get(kept.path)
    assert (gone.status_code, reason_of(gone)) == (404, "DOCUMENT_NOT_FOUND")


def test_files_are_kept_in_s3(archive: Archive) -> None:
    kept = keep(archive.people)
    key = f"drawbridge/files/objects/{kept.id}"
    assert kept.owner.read(kept.id)["state"] == "VERIFIED"
    assert key in archive.s3.names()
    assert kept.owner.client.get(kept.path).content == CONTENT
    part = kept.owner.client.get(kept.path, headers={"range": "bytes=-1000"})
    assert (part.status_code, part.content) == (206, CONTENT[-1000:])
    assert kept.owner.client.delete(kept.path.removesuffix("/content")).status_code == 204
    assert key not in archive.s3.names()


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
def test_a_store_that_fails_midway_breaks_the_transfer_and_leaves_no_short_file(
    archive: Archive, protocol: str
) -> None:
    kept = keep(archive.people)
    kept.owner.read(kept.id)  # or the service reads it, too
    received = b""
    with client(archive.stack, kept.owner, protocol) as browser:
        archive.tap.close_after(len(CONTENT) // 2)
        try:
            with pytest.raises(BROKEN), browser.stream("GET", kept.path) as response:
                assert (response.status_code, response.headers["content-length"]) == (200, str(len(CONTENT)))
                for piece in response.iter_raw():
                    received += piece
        finally:
            archive.tap.open()
    assert 0 < len(received) < len(CONTENT)
    rest = kept.owner.client.get(kept.path, headers={"range": f"bytes={len(received)}-", "if-range": ETAG})
    assert (rest.status_code, received + rest.content) == (206, CONTENT)


def test_a_store_that_is_away_is_503_and_a_lost_file_is_our_fault(archive: Archive) -> None:
    kept = keep(archive.people)
    archive.s3.kill()
    try:
        for answer in (kept.owner.client.get(kept.path), kept.owner.upload(CONTENT, kind="PROOF_OF_ADDRESS")):
            assert (answer.status_code, reason_of(answer)) == (503, "OBJECT_STORE_UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
        assert archive.stack.is_ready("document")  # payments need no files
    finally:
        archive.s3.start()
    lost = kept.owner.client.get(kept.path)  # this S3 forgets
    assert (lost.status_code, reason_of(lost)) == (500, "FILE_LOST")
    assert keep(archive.people).owner.client.get("/api/v1/documents").json()["documents"]
