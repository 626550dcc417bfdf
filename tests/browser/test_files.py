"""Uploads by FormData and downloads by fetch, from a page of another origin."""

import hashlib
from urllib.parse import unquote

import pytest

from tests.browser.tab import Tab
from tests.edge.people import People, scan


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("bill.png", "bill.png"),
        ("Prüfung – Größe.png", "Prüfung – Größe.png"),
        ('my "bill".png', 'my "bill".png'),
        ("Rechnung 🙂 100%.png", "Rechnung 🙂 100%.png"),
        ("a;b=c'd\\e.png", None),
        ("файл 文件.png", "файл 文件.png"),
    ],
)
async def test_a_file_comes_back_as_it_was_sent_under_its_name(
    tab: Tab, people: People, name: str, stored: str | None
) -> None:
    owner, content = people.sign_up(), scan()
    uploaded = await tab.upload(owner, content, name, kind_last=name == "bill.png")
    assert uploaded["status"] == 201, uploaded
    document = owner.client.get(uploaded["headers"]["location"]).json()
    assert stored in (None, document["fileName"])
    downloaded = await tab.ask(f"/api/v1/documents/{document['id']}/content", owner)
    assert (downloaded["status"], downloaded["headers"]["content-type"]) == (200, "image/png")
    assert (downloaded["size"], downloaded["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert unquote(downloaded["headers"]["content-disposition"]).endswith(document["fileName"])


async def test_a_page_reads_parts_of_a_file_and_nothing_of_what_it_has(tab: Tab, people: People) -> None:
    owner, content = people.sign_up(), scan()
    path = f"/api/v1/documents/{owner.upload(content, kind='PROOF_OF_ADDRESS').json()['id']}/content"
    part = await tab.ask(path, owner, headers={"range": "bytes=10-109"})
    assert (part["status"], part["size"]) == (206, 100)
    assert part["headers"]["content-range"] == f"bytes 10-109/{len(content)}"
    assert part["sha256"] == hashlib.sha256(content[10:110]).hexdigest()
    beyond = await tab.ask(path, owner, headers={"range": "bytes=99999999-"})
    assert (beyond["status"], beyond["headers"]["content-range"]) == (416, f"bytes */{len(content)}")
    assert "RANGE_NOT_SATISFIABLE" in beyond["text"]
    unchanged = await tab.ask(path, owner, headers={"if-none-match": part["headers"]["etag"]})
    assert (unchanged["status"], unchanged["size"]) == (304, 0)


async def test_a_page_reads_why_its_file_is_too_large(tab: Tab, people: People) -> None:
    owner = people.sign_up()
    refused = await tab.upload(owner, scan(), size=40_000_000)
    assert refused.get("status") == 413, refused
    assert "FILE_TOO_LARGE" in refused["text"]
    assert owner.client.get("/api/v1/documents").json()["documents"] == []


async def test_a_page_reads_why_its_file_is_none_of_those_wanted(tab: Tab, people: People) -> None:
    owner = people.sign_up()
    refused = await tab.upload(owner, b"just some text", "text.png")
    assert refused.get("status") == 415, refused
    assert "UNSUPPORTED_FILE_TYPE" in refused["text"]
    empty = await tab.upload(owner, b"", "nothing.png")
    assert (empty.get("status"), "EMPTY_FILE" in empty.get("text", "")) == (400, True), empty


async def test_an_upload_that_is_tried_again_is_the_same_document(tab: Tab, people: People) -> None:
    owner, content, key = people.sign_up(), scan(), {"idempotency-key": "bill-1"}
    first, again = [await tab.upload(owner, content, headers=key) for _ in range(2)]
    assert (first["status"], again["status"]) == (201, 201)
    assert again["text"] == first["text"]
    assert again["headers"]["location"] == first["headers"]["location"]
    assert ("idempotent-replayed" in first["headers"], again["headers"]["idempotent-replayed"]) == (False, "true")
    other = await tab.upload(owner, scan(), headers=key)
    assert (other["status"], "IDEMPOTENCY_KEY_REUSED" in other["text"]) == (422, True)
    assert len(owner.client.get("/api/v1/documents").json()["documents"]) == 1
