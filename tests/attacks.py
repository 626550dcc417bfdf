"""Access tokens that nobody must get in with, by what is wrong with them.

All but those whose signature is wrong are signed with a key that is trusted, so that nothing else is.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.claims import NO_TEXTS, wrong_claims
from tests.issuer import ANOTHER, CLAIMS, HEADER, NOW, PRIVATE, base64url, jwk, sign, token

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256


def attacks() -> dict[str, str]:
    """Returns the tokens by what is wrong with them. Each is different."""
    found = [*_forms(), *_signatures(), *_algorithms(), *_headers(), *_json(), *wrong_claims()]
    by_name = dict(found)
    assert len(by_name) == len(found)
    return by_name


def _raw(header: str, claims: dict[str, Any] | None = None, private: ec.EllipticCurvePrivateKey = PRIVATE) -> str:
    return sign(header, json.dumps(claims or CLAIMS), private)


def _parts() -> list[str]:
    return token(jti="parts").split(".")


def _forms() -> Iterator[tuple[str, str]]:
    """What is no compact JWS at all, or spelled as no encoder does."""
    good = token(jti="form")
    header, payload, signature = _parts()
    yield from {
        "one part": "abc",
        "two parts": f"{header}.{payload}",
        "four parts": good + ".abc",
        "five parts, as if encrypted": f"{header}.abc.def.ghi.{signature}",
        "an empty part at the end": good + ".",
        "an empty part at the beginning": "." + good,
        "only dots": "..",
        "no header": f".{payload}.{signature}",
        "no payload": f"{header}..{signature}",
        "too long": token(padding="x" * 4096),
        "much too long": token(padding="x" * 20_000),
        "a blank within": good[:30] + " " + good[30:],
        "a tab within": good[:30] + "\t" + good[30:],
        "padded": good + "==",
        "a padded header": f"{header}=.{payload}.{signature}",
        "a padded payload": f"{header}.{payload}=.{signature}",
        "plain base64": f"{header}.{payload}.{signature[:-2]}+/",
        "a quoted token": f'"{good}"',
        "a token in angle brackets": f"<{good}>",
        "two tokens joined by a comma": f"{good},{good}",
        "two tokens joined by a comma and a blank": f"{good}, {good}",
        "two tokens joined by a blank": f"{good} {good}",
        "the scheme twice": f"Bearer {good}",
        "a token and a parameter": f"{good};realm=x",
        "percent-encoded": good.replace(".", "%2E"),
        "a JWS as JSON": json.dumps({"protected": header, "payload": payload, "signature": signature}),
        "a JWS as JSON, in base64url": base64url(json.dumps({"payload": payload}).encode()),
        "another spelling of the signature": _flipped(good),
        "another spelling of the header": f"{_respelled(header)}.{payload}.{signature}",
        "hex": good.encode().hex(),
    }.items()


def _flipped(good: str) -> str:
    """The same bytes: the two last bits of a 64 byte signature's base64url mean nothing."""
    return good[:-1] + _ALPHABET[_ALPHABET.index(good[-1]) ^ 1]


def _respelled(part: str) -> str:
    return part + "A" if len(part) % 4 == 0 else part[:-1] + _ALPHABET[_ALPHABET.index(part[-1]) ^ 1]


def _signatures() -> Iterator[tuple[str, str]]:
    """What the issuer did not sign."""
    signed = token(jti="signed").rpartition(".")[0]
    raw = sign(json.dumps(HEADER), json.dumps({**CLAIMS, "jti": "r-s"}))
    r_s = raw.rpartition(".")
    zero, order = bytes(32), _ORDER.to_bytes(32)
    made = {
        "no signature": b"",
        "a zero signature": bytes(64),
        "r is zero": zero + b"\1" * 32,
        "s is zero": b"\1" * 32 + zero,
        "r is the order": order + b"\1" * 32,
        "s is the order": b"\1" * 32 + order,
        "r and s are the order": order + order,
        "r and s are one": (zero[1:] + b"\1") * 2,
        "all bits": b"\xff" * 64,
        "a short signature": b"\1" * 63,
        "a long signature": b"\1" * 65,
        "a signature of ES384's length": b"\1" * 96,
        "a DER signature": PRIVATE.sign(signed.encode(), ec.ECDSA(SHA256())),
        "a DER signature of nothing": bytes.fromhex("3006020100020100"),
        "text for a signature": b"signature",
    }
    yield from ((name, f"{signed}.{base64url(signature)}") for name, signature in made.items())
    yield "another's key", token(private=ANOTHER)
    yield "another token's signature", f"{token(sub='usr_2').rpartition('.')[0]}.{token(jti='s').rpartition('.')[2]}"
    yield "a changed header", f"{base64url(json.dumps({**HEADER, 'typ': 'AT+JWT'}).encode())}.{raw.partition('.')[2]}"
    yield "a signature twice", f"{r_s[0]}.{r_s[2]}{r_s[2]}"
    yield "half a signature", f"{r_s[0]}.{r_s[2][:43]}"


def _algorithms() -> Iterator[tuple[str, str]]:
    """What would let the token choose how it is verified."""
    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        unsigned = _raw(json.dumps({**HEADER, "alg": algorithm})).rpartition(".")[0]
        yield f"alg {algorithm!r} and no signature", unsigned + "."
        yield f"alg {algorithm!r} and a signature", _raw(json.dumps({**HEADER, "alg": algorithm}))
    for name, key in _public_keys().items():
        for algorithm, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
            yield f"{algorithm} with {name} for a secret", _mac(algorithm, digest, key)
    for algorithm in (
        "ES384",
        "ES512",
        "ES256K",
        "RS256",
        "RS512",
        "PS256",
        "EdDSA",
        "Ed25519",
        "es256",
        "ES256 ",
        "dir",
    ):
        yield f"alg {algorithm!r} over ES256", token({"alg": algorithm})
    for name, value in NO_TEXTS.items():
        yield f"alg {name}", token({"alg": value})
    yield "no alg", _raw('{"typ":"at+jwt","kid":"k1"}')


def _public_keys() -> dict[str, bytes]:
    public = PRIVATE.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "the public key": pem,
        "the public key without its last line break": pem.rstrip(),
        "the public key in DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "the public point": public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "the key's id": b"k1",
        "nothing": b"",
        "the JWK": json.dumps(jwk(PRIVATE, "k1")).encode(),
    }


def _mac(algorithm: str, digest: str, key: bytes) -> str:
    signed = f"{base64url(json.dumps({**HEADER, 'alg': algorithm}).encode())}.{base64url(json.dumps(CLAIMS).encode())}"
    return f"{signed}.{base64url(hmac.digest(key, signed.encode(), getattr(hashlib, digest)))}"


def _headers() -> Iterator[tuple[str, str]]:
    """What says where keys are, or wants to be understood."""
    own = jwk(ANOTHER, "k1")
    forged: dict[str, Any] = {
        "jwk": own,
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert",
        "x5c": ["MIIB"],
        "x5t": "abc",
        "x5t#S256": "abc",
        "crit": ["exp"],
        "b64": False,
        "zip": "DEF",
        "cty": "JWT",
        "enc": "A256GCM",
        "epk": own,
        "p2c": 2_000_000_000,
        "nonce": "abc",
        "iss": "https://issuer.example",
        "url": "https://evil.example",
    }
    for name, value in forged.items():
        yield f"header {name}", token({name: value})
        yield f"header {name}, by another's key", token({name: value}, private=ANOTHER)
    yield "crit and b64", token({"crit": ["b64"], "b64": False})
    yield "crit empty", token({"crit": []})
    yield "crit of what is known", token({"crit": ["alg"]})
    yield "jwk and no kid", sign(json.dumps({"alg": "ES256", "typ": "at+jwt", "jwk": own}), json.dumps(CLAIMS), ANOTHER)
    for typ in ("JWT", "jwt", "id+jwt", "dpop+jwt", "logout+jwt", "secevent+jwt", "", "at+jwt ", "application/jwt"):
        yield f"typ {typ!r}", token({"typ": typ})
    for name, value in NO_TEXTS.items():
        yield f"typ {name}", token({"typ": value})
        yield f"kid {name}", token({"kid": value})
    yield "no typ", _raw('{"alg":"ES256","kid":"k1"}')
    yield "no kid", _raw('{"alg":"ES256","typ":"at+jwt"}')
    for kid in ("", "K1", "k1 ", "k1\0", "../../k1", "/dev/null", "k1' OR '1'='1", "k2", "\ud800", "x" * 3000):
        yield f"kid {kid[:20]!r}", token({"kid": kid})


def _json() -> Iterator[tuple[str, str]]:
    """What two readers would read in two ways."""
    claims = json.dumps({**CLAIMS, "jti": "json"})
    header = json.dumps(HEADER)
    yield from {
        "alg twice": sign('{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"k1"}', claims),
        "kid twice": sign('{"alg":"ES256","typ":"at+jwt","kid":"k2","kid":"k1"}', claims),
        "alg twice, once escaped": sign('{"\\u0061lg":"none","alg":"ES256","typ":"at+jwt","kid":"k1"}', claims),
        "sub twice": sign(header, claims[:-1] + ',"sub":"usr_2"}'),
        "exp twice": sign(header, claims[:-1] + f',"exp":{int(NOW) + 900}}}'),
        "roles twice": sign(header, claims[:-1] + ',"roles":["admin"]}'),
        "members twice deep within": sign(header, claims[:-1] + ',"a":{"b":1,"b":2}}'),
        "a header that is a list": sign("[]", claims),
        "a header that is a text": sign('"ES256"', claims),
        "a header that is null": sign("null", claims),
        "a header that is empty": sign("{}", claims),
        "a header that is no JSON": sign("alg=ES256", claims),
        "a header nested deeply": sign("[" * 1400 + "]" * 1400, "{}"),
        "a header of objects nested deeply": sign('{"a":' * 400 + "1" + "}" * 400, "{}"),
        "a header with a comment": sign(header[:-1] + "/**/}", claims),
        "a header in UTF-16": f"{base64url(header.encode('utf-16'))}.{token(jti='u').partition('.')[2]}",
        "a header after a byte order mark": sign("\ufeff" + header, claims),
        "a header and more": sign(header + "{}", claims),
        "claims that are a list": sign(header, "[]"),
        "claims that are a text": sign(header, '"usr_1"'),
        "claims that are null": sign(header, "null"),
        "claims that are empty": sign(header, "{}"),
        "claims that are no JSON": sign(header, "sub=usr_1"),
        "claims cut short": sign(header, claims[:-1]),
        "claims and more": sign(header, claims + "{}"),
        "claims with a comma too many": sign(header, claims[:-1] + ",}"),
        "claims in single quotes": sign(header, claims.replace('"', "'")),
        "claims nested deeply": sign(header, claims[:-1] + ',"a":' + "[" * 900 + "]" * 900 + "}"),
        "claims after a byte order mark": sign(header, "\ufeff" + claims),
        "a number of many digits": sign(header, claims[:-1] + ',"a":' + "9" * 2000 + ',"exp":"x"}'),
        "exp infinite": sign(header, json.dumps({**CLAIMS, "exp": 0}).replace('"exp": 0', '"exp": 1e999')),
        "exp NaN": sign(header, json.dumps({**CLAIMS, "exp": float("nan")})),
        "exp Infinity": sign(header, json.dumps({**CLAIMS, "exp": float("inf")})),
        "NaN in a claim that nobody reads": sign(header, json.dumps({**CLAIMS, "a": float("nan")})),
    }.items()
