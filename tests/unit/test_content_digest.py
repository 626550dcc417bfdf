"""Content-Digest (RFC 9530): what is read, what is refused, and what is verified."""

import base64
import hashlib

import pytest

from services.document.digests import ContentDigest, DigestMismatch, InvalidContentDigest

CONTENT = b'{"hello": "world"}\n'
SHA_256 = f":{base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()}:"
SHA_512 = f":{base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()}:"
OTHER = f":{base64.b64encode(hashlib.sha256(b'other').digest()).decode()}:"


def verify(header: str, content: bytes = CONTENT) -> None:
    digest = ContentDigest(header)
    for start in range(0, len(content), 5):
        digest.update(content[start : start + 5])
    digest.verify()


def test_the_examples_of_the_rfc_are_read() -> None:
    verify("sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:")
    verify("sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:", b'{"hello": "world"}')


@pytest.mark.parametrize(
    "header",
    [
        "",
        "  ",
        f"sha-256={SHA_256}",
        f"sha-512={SHA_512}",
        f"sha-256={SHA_256},sha-512={SHA_512}",
        f"sha-256={SHA_256} \t,\t sha-512={SHA_512}",
        f'sha-256={SHA_256};q=1;note="a, b", md5=:AAAA:',
        "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:, unixsum=30637, *x=?1, y, z=token",
        f"sha-256={OTHER}, sha-256={SHA_256}",  # a dictionary: the last counts
    ],
)
def test_what_is_true_or_unknown_passes(header: str) -> None:
    verify(header)


@pytest.mark.parametrize("header", [f"sha-256={OTHER}", f"sha-512={SHA_512}, sha-256={OTHER}"])
def test_what_is_not_true_is_refused(header: str) -> None:
    with pytest.raises(DigestMismatch):
        verify(header)


def test_only_what_is_to_be_verified_is_hashed() -> None:
    assert not ContentDigest("md5=:AAAA:")
    assert ContentDigest(f"sha-256={SHA_256}")


@pytest.mark.parametrize(
    "header",
    [
        "sha-256",
        "sha-256=",
        "sha-256=?1",
        "sha-256=abc",
        "sha-256=:abc",
        "sha-256=:a:",
        "sha-256=:====:",
        "sha-256=:AAAA:",  # of another length
        f"sha-256={SHA_512}",
        f"sha-256={SHA_256[1:-1]}",  # as Digest (RFC 3230) wrote it
        f"SHA-256={SHA_256}",  # keys are written small
        f"sha-256 = {SHA_256}",
        f"sha-256={SHA_256},",
        f",sha-256={SHA_256}",
        f"sha-256={SHA_256} sha-512={SHA_512}",
        "md5=(1 2)",
        "ä=1",
        "\x00",
    ],
)
def test_what_is_no_dictionary_of_hashes_is_refused(header: str) -> None:
    with pytest.raises(InvalidContentDigest) as refused:
        ContentDigest(header)
    assert refused.value.fields[0].field == "Content-Digest"
