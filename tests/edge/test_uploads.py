"""Uploads through the real edge: broken off at any byte, too large, too many, and sent again after a crash."""

import hashlib
import http.client
import json
import os
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import pytest

from services.document.upload import DRAINED_BYTES
from tests.edge.contract.edge import reason_of
from tests.edge.people import People, Person, scan
from tests.edge.stack import Stack
from tests.waiting import wait_until

PATH = "/api/v1/documents/upload"
BOUNDARY = "upload-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
CONTENT = scan((900, 700))
OFFSETS = 22
LARGE = 25 * 1024 * 1024


def form(content: bytes, kind: str = "PROOF_OF_ADDRESS") -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="kind"\r\n\r\n{kind}\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="scan.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def headers(person: Person, **more: str) -> dict[str, str]:
    return {"authorization": person.client.headers["authorization"], "content-type": CONTENT_TYPE, **more}


def address(stack: Stack) -> tuple[str, int]:
    url = httpx.URL(stack.edge_url)
    return url.host, url.port or 80


@pytest.fixture(scope="module")
def person(people: People) -> Person:
    return people.sign_up()


@pytest.fixture
def nothing_stays(stack: Stack, person: Person) -> Iterator[None]:
    """Whatever a test does leaves no file in the store, no row, no temporary file and no open request."""
    before = kept(stack, person)
    yield
    wait_until(lambda: kept(stack, person) == before, "something is left behind", seconds=15)
    wait_until(lambda: stack.in_flight("document") == 0, "a request is still open", seconds=15)


def kept(stack: Stack, person: Person) -> tuple[set[str], int, int]:
    files = {file.name for file in (stack.settings.folder.data / "documents").rglob("*") if file.is_file()}
    return files, len(person.client.get("/api/v1/documents").json()["documents"]), spools(stack)


def spools(stack: Stack) -> int:
    """How many files without a name the document service has open. It shows them to root alone."""
    open_files = Path(f"/proc/{stack.pid('document')}/fd")
    shown = open_files.iterdir() if os.access(open_files, os.R_OK) else ()
    return sum("(deleted)" in str(_target(one)) for one in shown)


def _target(link: Path) -> Path:
    try:
        return link.readlink()
    except FileNotFoundError:  # closed meanwhile
        return Path()


def reset(connection: socket.socket) -> None:
    """Breaks a connection off as a machine does that has crashed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def offsets(length: int) -> list[int]:
    return [0, 1, *(length * number // OFFSETS for number in range(1, OFFSETS)), length - 3, length - 2, length - 1]


@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
@pytest.mark.usefixtures("nothing_stays")
def test_an_upload_over_http_1_that_is_broken_off_at_any_byte_leaves_nothing_behind(
    stack: Stack, person: Person, end: Callable[[socket.socket], None], chunked: bool
) -> None:
    body = form(CONTENT)
    length = "transfer-encoding: chunked" if chunked else f"content-length: {len(body)}"
    lines = [f"POST {PATH} HTTP/1.1", "host: edge", length, *(f"{k}: {v}" for k, v in headers(person).items())]
    head = "\r\n".join([*lines, "\r\n"]).encode()
    # The last bytes of a chunked body come after its closing boundary: it is whole, then, as far as anybody can tell.
    at = [one for one in offsets(len(body)) if not (chunked and one >= len(body) - 3)]
    for offset in at:
        connection = socket.create_connection(address(stack))
        part = body[:offset]
        connection.sendall(head + (f"{len(part):x}\r\n".encode() + part + b"\r\n" if chunked and part else part))
        end(connection)


@pytest.mark.parametrize("whole_connection", [False, True], ids=["the stream", "the connection"])
@pytest.mark.usefixtures("nothing_stays")
def test_an_upload_over_http_2_that_is_broken_off_at_any_byte_leaves_nothing_behind(
    stack: Stack, person: Person, whole_connection: bool
) -> None:
    body = form(CONTENT)
    for offset in offsets(len(body)):
        with Http2(stack) as http2:
            stream = http2.begin(headers(person, **{"content-length": str(len(body))}))
            http2.send(stream, body[:offset])
            if whole_connection:
                reset(http2.socket)
            else:
                http2.connection.reset_stream(stream, 8)  # CANCEL, as browsers say
                http2.flush()


class Http2:
    """An HTTP/2 client that may stop at any byte."""

    def __init__(self, stack: Stack) -> None:
        self.socket = socket.create_connection(address(stack))
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.flush()

    def __enter__(self) -> "Http2":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def begin(self, fields: dict[str, str]) -> int:
        stream = self.connection.get_next_available_stream_id()
        pseudo = [(":method", "POST"), (":path", PATH), (":scheme", "http"), (":authority", "edge")]
        self.connection.send_headers(stream, [*pseudo, *fields.items()])
        self.flush()
        return stream

    def send(self, stream: int, data: bytes) -> None:
        while data:
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if not room:
                self.connection.receive_data(self.socket.recv(65536))
            else:
                self.connection.send_data(stream, data[:room])
                data = data[room:]
            self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.connection.data_to_send())


def endless(content: bytes, until: int) -> Iterator[bytes]:
    """The body of a file that goes on."""
    yield form(content).partition(f"\r\n--{BOUNDARY}--".encode())[0]
    for _ in range(until // 65536):
        yield secrets.token_bytes(65536)


@pytest.mark.usefixtures("nothing_stays")
def test_a_file_that_is_too_large_is_refused_long_before_it_ends(person: Person) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for piece in endless(CONTENT, 40 * LARGE):
            sent += len(piece)
            yield piece

    answer = person.client.post(PATH, content=body(), headers={"content-type": CONTENT_TYPE})
    assert (answer.status_code, reason_of(answer)) == (413, "FILE_TOO_LARGE")
    assert sent < LARGE + DRAINED_BYTES + LARGE  # the last is what is on its way


@pytest.mark.usefixtures("nothing_stays")
def test_a_body_that_says_that_it_is_too_large_is_refused_at_once(person: Person) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for piece in endless(CONTENT, 20 * LARGE):
            sent += len(piece)
            yield piece

    fields = {"content-type": CONTENT_TYPE, "content-length": str(sum(map(len, endless(CONTENT, 20 * LARGE))))}
    answer = person.client.post(PATH, content=body(), headers=fields)
    assert (answer.status_code, reason_of(answer)) == (413, "FILE_TOO_LARGE")
    assert sent < DRAINED_BYTES + LARGE


@pytest.mark.usefixtures("nothing_stays")
def test_http_client_reads_the_refusal_of_a_file_that_it_is_still_sending(stack: Stack, person: Person) -> None:
    connection = http.client.HTTPConnection(*address(stack), timeout=30)
    body = form(b"GIF89a" + bytes(2 * LARGE))
    with suppress(BrokenPipeError, ConnectionResetError):  # it was refused meanwhile: the answer is there
        connection.request("POST", PATH, body, headers(person))
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["code"]) in ((415, 3), (413, 8))
    connection.close()


@pytest.mark.parametrize("size", [1024 * 1024, 6 * 1024 * 1024])
@pytest.mark.usefixtures("nothing_stays")
def test_curl_reads_the_refusal_of_a_file_of_usual_size_over_http_1_and_2(
    stack: Stack, person: Person, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "large.gif"
    file.write_bytes(b"GIF89a" + bytes(size))
    for protocol in ("--http1.1", "--http2"):
        command = ["curl", "--silent", "--show-error", protocol, "--cacert", stack.edge_ca]
        command += ["--header", f"authorization: {person.client.headers['authorization']}"]
        command += ["--form", "kind=PASSPORT", "--form", f"file=@{file}", stack.edge_tls_url + PATH]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert json.loads(told.stdout)["details"][0]["reason"] == "UNSUPPORTED_FILE_TYPE", (protocol, told)


@pytest.mark.usefixtures("nothing_stays")
def test_what_headers_say_of_a_body_is_heeded_over_the_edge(person: Person) -> None:
    said = {"content-digest": "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:", "content-encoding": "gzip"}
    digest, encoding = (
        person.client.post(PATH, content=form(CONTENT), headers={"content-type": CONTENT_TYPE, name: value})
        for name, value in said.items()
    )
    assert (digest.status_code, reason_of(digest)) == (400, "DIGEST_MISMATCH")
    assert (encoding.status_code, reason_of(encoding)) == (415, "UNSUPPORTED_CONTENT_ENCODING")
    assert encoding.headers["accept-encoding"] == "identity"


def test_an_upload_that_is_sent_again_is_answered_byte_for_byte_as_before(person: Person) -> None:
    fields = {"content-type": CONTENT_TYPE, "idempotency-key": secrets.token_hex()}
    first = person.client.post(PATH, content=form(CONTENT), headers=fields)
    again = person.client.post(PATH, content=form(CONTENT), headers=fields)
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    other = person.client.post(PATH, content=form(CONTENT, "PASSPORT"), headers=fields)
    assert (other.status_code, reason_of(other)) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_document_service_that_is_killed_while_files_arrive_loses_none_and_doubles_none(
    stack: Stack, people: People
) -> None:
    person = people.sign_up()
    content = {secrets.token_hex(): scan((500, 400)) for _ in range(6)}

    def upload(key: str) -> httpx.Response:
        fields = {"content-type": CONTENT_TYPE, "idempotency-key": key}
        return person.client.post(PATH, content=form(content[key]), headers=fields)

    keys = list(content)
    for key in keys[:3]:
        assert upload(key).status_code == 201
    with socket.create_connection(address(stack)) as halfway:
        body = form(CONTENT)
        lines = [f"POST {PATH} HTTP/1.1", "host: edge", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers(person).items()]
        halfway.sendall("\r\n".join([*lines, "\r\n"]).encode() + body[:-100])
        wait_until(lambda: spools(stack) > 0, "the upload has not begun")
        stack.kill("document")
        assert b" 503 " in halfway.recv(65536)
    ids = {}
    for key in keys:
        wait_until(lambda key=key: upload(key).status_code == 201, "the service does not come back")  # type: ignore[misc]
        ids[key] = upload(key).json()["id"]
    kept_now = person.client.get("/api/v1/documents").json()["documents"]
    assert sorted(one["id"] for one in kept_now) == sorted(ids.values())
    sums = {one["id"]: one["sha256"] for one in kept_now}
    assert all(sums[ids[key]] == hashlib.sha256(content[key]).hexdigest() for key in keys)


def test_a_slow_upload_is_not_in_the_way_of_others(stack: Stack, person: Person) -> None:
    body = form(CONTENT)
    lines = [f"POST {PATH} HTTP/1.1", "host: edge", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers(person).items()]
    with socket.create_connection(address(stack)) as slow:
        slow.sendall("\r\n".join([*lines, "\r\n"]).encode())
        for start in range(0, len(body), len(body) // 20):
            slow.sendall(body[start : start + len(body) // 20])
            began = time.monotonic()
            assert person.client.get("/api/v1/documents").status_code == 200
            assert time.monotonic() - began < 5
        assert b" 201 " in slow.recv(65536)
