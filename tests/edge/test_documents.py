"""Documents through the real edge: uploaded, read, accepted or not, and what becomes of their owner then."""

from tests.edge.contract.edge import reason_of
from tests.edge.people import Json, People, passport_of, scan
from tests.waiting import wait_until


def test_a_document_comes_back_as_it_was_and_is_gone_when_deleted(people: People) -> None:
    owner, content = people.sign_up("Ada Byron"), passport_of("Ada Byron")
    uploaded = owner.upload(content, "../../etc/pass port.png")
    document = uploaded.json()
    path = f"/api/v1/documents/{document['id']}"
    assert uploaded.headers["location"] == path
    assert (document["state"], document["contentType"], document["fileName"], document["checks"]) == (
        "PENDING",
        "image/png",
        "pass port.png",
        [],
    )
    assert owner.read(document["id"])["state"] == "VERIFIED"
    downloaded = owner.client.get(f"{path}/content")
    assert (downloaded.headers["content-type"], downloaded.content) == ("image/png", content)
    assert owner.client.post(f"{path}:verify").json()["state"] == "PENDING"
    assert owner.read(document["id"])["state"] == "VERIFIED"
    thief = people.sign_up("Ada Byron")
    assert thief.client.get(path).status_code == 403
    copied = thief.read(thief.upload(content).json()["id"])
    assert (copied["state"], _problems(copied)) == ("REJECTED", {"NOT_ANOTHER_USERS": "FAILED"})
    assert owner.client.delete(path).status_code == 204
    assert owner.client.get(f"{path}/content").status_code == 404


def test_who_mends_their_name_may_pay_with_the_passport_that_was_rejected(people: People) -> None:
    payer, payee = people.sign_up("Ada Bryon"), people.sign_up()
    people.deposit(payer, 10).raise_for_status()
    document_id = payer.identify("Ada Byron")
    rejected = payer.read(document_id)
    assert (rejected["state"], _problems(rejected)) == ("REJECTED", {"NAME_MATCHES": "FAILED"})
    refused = payer.pay(payee, 1)
    assert (refused.status_code, "IDENTITY_DOCUMENT_REQUIRED" in refused.text) == (400, True)

    mended = payer.client.patch("/api/v1/users/me?updateMask=displayName", json={"displayName": "Ada Byron"})
    assert mended.status_code == 200
    wait_until(lambda: payer.pay(payee, 1, key="tickets").status_code == 201, "the passport is not read anew")
    assert payer.read(document_id)["state"] == "VERIFIED"

    def told() -> list[str]:
        notifications = payer.client.get("/api/v1/notifications").json()["notifications"]
        return [one["kind"] for one in reversed(notifications) if one["documentId"] == document_id]

    wait_until(lambda: told() == ["DOCUMENT_REJECTED", "DOCUMENT_VERIFIED"], "nobody is told of it")


def test_a_picture_that_nobody_can_read_is_not_called_a_forgery(people: People) -> None:
    owner = people.sign_up()
    document = owner.read(owner.upload(scan()).json()["id"])
    assert (document["state"], set(_problems(document).values())) == ("REJECTED", {"UNREADABLE"})
    address = owner.read(owner.upload(scan(), "bill.png", "PROOF_OF_ADDRESS").json()["id"])
    assert (address["state"], _problems(address)) == ("VERIFIED", {})


def test_an_upload_that_is_no_document_is_refused(people: People) -> None:
    owner = people.sign_up()
    text = owner.upload(b"just some text " * 50)
    assert (text.status_code, reason_of(text)) == (415, "UNSUPPORTED_FILE_TYPE")
    small = owner.upload(scan((40, 40)), "bill.png", "PROOF_OF_ADDRESS").json()
    assert _problems(owner.read(small["id"])) == {"USEFUL_SIZE": "FAILED"}
    large = owner.upload(scan() + b"\0" * 26_300_000)
    assert (large.status_code, reason_of(large)) == (413, "FILE_TOO_LARGE")
    assert [one["id"] for one in owner.client.get("/api/v1/documents").json()["documents"]] == [small["id"]]


def _problems(document: Json) -> dict[str, str]:
    """What did not pass, and how it came out."""
    return {one["name"]: one["outcome"] for one in document["checks"] if one["outcome"] != "PASSED"}
