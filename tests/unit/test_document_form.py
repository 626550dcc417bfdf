"""Reading an upload: however it is cut, and whatever is wrong with it."""

import itertools

import pytest

from services.document.domain import Kind, UnknownDocumentKind
from services.document.form import (
    MOST_BYTES_BESIDE_FILE,
    Form,
    IncompleteUpload,
    InvalidMultipart,
    NotMultipart,
    PartRequired,
    UnexpectedPart,
)
from services.runtime.errors import Error

BOUNDARY = "----b0undary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
KIND = b'Content-Disposition: form-data; name="kind"\r\n\r\nPASSPORT'
CONTENT = b"\r\n\n--\r\n----b0undar\r\n------b0undar\r\r\n-" + bytes(range(256))
FILE = b'Content-Disposition: form-data; name="file"; filename="p.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + CONTENT


def body(*parts: bytes) -> bytes:
    delimiter = f"--{BOUNDARY}".encode()
    return b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--\r\n"


def named(disposition: str, content: bytes = b"x") -> bytes:
    return f"Content-Disposition: form-data; {disposition}\r\n\r\n".encode() + content


def read(*pieces: bytes, content_type: str = CONTENT_TYPE) -> tuple[Kind, str, bytes]:
    form = Form(content_type)
    content = b"".join(itertools.chain.from_iterable(form.feed(piece) for piece in pieces))
    return *form.close(), content


def test_an_upload_may_be_cut_at_any_byte() -> None:
    whole = body(KIND, FILE)
    for cut in range(len(whole) + 1):
        assert read(whole[:cut], whole[cut:]) == (Kind.PASSPORT, "p.jpg", CONTENT), cut


def test_an_upload_may_come_byte_by_byte() -> None:
    pieces = [bytes([one]) for one in body(KIND, FILE)]
    assert read(*pieces) == (Kind.PASSPORT, "p.jpg", CONTENT)


def test_the_kind_may_follow_the_file() -> None:
    assert read(body(FILE, KIND)) == (Kind.PASSPORT, "p.jpg", CONTENT)


def test_a_preamble_and_an_epilogue_are_ignored() -> None:
    assert read(b"Hello\r\n", body(KIND, FILE), b"Goodbye") == (Kind.PASSPORT, "p.jpg", CONTENT)


def test_every_upload_cut_short_of_its_closing_boundary_is_incomplete() -> None:
    whole = body(KIND, FILE).removesuffix(b"\r\n")
    for length in range(len(whole)):
        with pytest.raises(IncompleteUpload):
            read(whole[:length])


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('name="file"; filename="a b.pdf"', "a b.pdf"),
        ("name=file; filename=plain.pdf", "plain.pdf"),
        ('name="file"; filename="say \\"hi\\".pdf"', 'say "hi".pdf'),
        ('name="file"; filename="50%22.pdf"', '50".pdf'),
        ('name="file"; filename="Prüfung.pdf"', "Prüfung.pdf"),
        ('name="file"; filename="x.pdf"; filename*=UTF-8\'\'Pr%C3%BCfung%20%E2%82%AC.pdf', "Prüfung €.pdf"),
        ('filename="x.pdf"; name="file"', "x.pdf"),
        ("name=\"file\"; filename*=iso-8859-1'en'%A3.pdf; filename=x.pdf", "£.pdf"),
        ('name="file"; filename="a; filename*=UTF-8\'\'evil.exe; x.png"', "a; filename*=UTF-8''evil.exe; x.png"),
        ('name="file"; filename="a; filename=b; \\"; filename=c.png"', 'a; filename=b; "; filename=c.png'),
        ('name="file"; filename=""', ""),
        ('name="file"', ""),
    ],
)
def test_file_names_are_read_as_browsers_and_other_clients_write_them(disposition: str, name: str) -> None:
    assert read(body(KIND, named(disposition)))[1] == name


@pytest.mark.parametrize(
    "content_type",
    [
        CONTENT_TYPE.replace(BOUNDARY, f'"{BOUNDARY}"'),
        CONTENT_TYPE.upper().replace(BOUNDARY.upper(), BOUNDARY),
        f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
    ],
)
def test_a_boundary_may_be_written_in_any_way_that_rfc_2045_allows(content_type: str) -> None:
    assert read(body(KIND, FILE), content_type=content_type)[0] is Kind.PASSPORT


@pytest.mark.parametrize("content_type", ["", "application/json", "image/jpeg", "multipart/mixed; boundary=b", ";"])
def test_any_other_content_type_is_refused_as_415(content_type: str) -> None:
    with pytest.raises(NotMultipart) as refused:
        Form(content_type)
    assert (refused.value.reason, refused.value.http_status) == ("INVALID_MULTIPART", 415)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_missing_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidMultipart) as refused:
        Form(content_type)
    assert refused.value.http_status == 0


PARTS: dict[str, tuple[list[bytes], type[Error]]] = {
    "no kind": ([FILE], PartRequired),
    "no file": ([KIND], PartRequired),
    "nothing": ([], PartRequired),
    "two files": ([KIND, FILE, FILE], UnexpectedPart),
    "two kinds": ([KIND, KIND, FILE], UnexpectedPart),
    "another": ([KIND, FILE, named('name="other"')], UnexpectedPart),
    "one without a name": ([named("filename=x"), KIND, FILE], UnexpectedPart),
    "an unknown kind": ([named('name="kind"', b"SELFIE"), FILE], UnknownDocumentKind),
    "an empty kind": ([named('name="kind"', b""), FILE], UnknownDocumentKind),
    "a kind that is no text": ([named('name="kind"', b"\xff"), FILE], UnknownDocumentKind),
    "the kind that is none": ([named('name="kind"', b"KIND_UNSPECIFIED"), FILE], UnknownDocumentKind),
}


@pytest.mark.parametrize("case", PARTS)
def test_other_parts_than_kind_and_file_once_each_are_refused(case: str) -> None:
    parts, error = PARTS[case]
    with pytest.raises(error):
        read(body(*parts))


HOSTILE: dict[str, bytes] = {
    "bare line feeds": body(KIND, FILE).replace(b"\r\n", b"\n"),
    "a line that is no header": body(b"no header at all\r\n\r\nx"),
    "a part without disposition": body(b"Content-Type: image/jpeg\r\n\r\nx"),
    "a part with another disposition": body(b'Content-Disposition: attachment; name="file"\r\n\r\nx'),
    "two names of the file": body(KIND, named('name="file"; filename="a.jpg"; filename="b.jpg"')),
    "two names in unequal letters": body(KIND, named('name=file; filename=a.jpg; FileName = "b.jpg"')),
    "two extended names": body(KIND, named("name=file; filename*=UTF-8''a.jpg; filename*=UTF-8''b.jpg")),
    "two names of the part": body(named('name="kind"; name="file"', b"PASSPORT"), FILE),
    "a long header": body(b"X-Long: " + b"x" * 10_000 + b"\r\n\r\nx"),
    "many headers": body(b"X-Many: x\r\n" * 16 + KIND),
    "a name that is no text": body(b'Content-Disposition: form-data; name="\xff"\r\n\r\nx'),
    "a kind that does not end": body(named('name="kind"', b"x" * MOST_BYTES_BESIDE_FILE))[: MOST_BYTES_BESIDE_FILE + 1],
    "a long preamble": b"x" * (MOST_BYTES_BESIDE_FILE + 1) + b"\r\n" + body(KIND, FILE),
    "a long epilogue": body(KIND, FILE) + b"x" * (MOST_BYTES_BESIDE_FILE + 1),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_broken_bodies_are_refused(case: str) -> None:
    with pytest.raises(InvalidMultipart):
        read(HOSTILE[case])


def test_what_clients_wrote_is_cut_before_it_is_told_back() -> None:
    with pytest.raises(UnexpectedPart) as refused:
        read(body(named(f'name="{"n" * 4000}"')))
    assert len(str(refused.value)) < 200
