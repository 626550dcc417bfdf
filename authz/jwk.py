"""One public key of an issuer (JSON Web Key, RFC 7517), bound to the one algorithm whose signatures it verifies."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.strict import base64url

ALGORITHMS = ("ES256", "ES384", "EdDSA", "RS256", "PS256")
"""All that there are; each issuer has some of them."""

_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_ALGORITHMS_OF = {
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("RSA", None): ("RS256", "PS256"),
}
"""By key type and curve; the first is that of a key which names none."""
_SECRET_MEMBERS = {"k", "d", "p", "q", "dp", "dq", "qi", "oth"}
_RSA_BITS = range(2048, 8192 + 1)
_RSA_EXPONENTS = range(65537, 2**32, 2)
_LONGEST_KID = 255
_ED25519_PRIME = 2**255 - 19
# The y coordinates of points of small order: anybody can make signatures that such a key verifies.
_SMALL_ORDER = {
    0,
    1,
    _ED25519_PRIME - 1,
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
}


@dataclass(frozen=True, slots=True)
class Key:
    """A public key. Keys are equal that verify the same signatures."""

    algorithm: str
    spki: bytes
    """The key itself (SubjectPublicKeyInfo, DER)."""
    _public: Any = field(compare=False, repr=False)

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Tells whether its owner signed this."""
        return bool(jwt.get_algorithm_by_name(self.algorithm).verify(signed, self._public, signature))


def read(jwk: dict[str, Any], algorithms: Collection[str]) -> Key | None:
    """Returns the key for one of the algorithms, None where it is for something else.

    Raises ValueError, TypeError or KeyError for what is no public key to trust: a secret one, a weak one, one off its
    curve.
    """
    if jwk["kty"] == "oct" or not _SECRET_MEMBERS.isdisjoint(jwk):
        raise ValueError("it holds a secret key")
    kind = (jwk["kty"], jwk.get("crv"))
    fitting = _ALGORITHMS_OF.get(kind, ())
    algorithm = jwk.get("alg", fitting[0] if fitting else None)
    if algorithm not in fitting or algorithm not in algorithms:
        return None
    if jwk.get("use", "sig") != "sig" or jwk.get("key_ops", ["verify"]) != ["verify"]:
        return None
    if not isinstance(jwk["kid"], str) or not 0 < len(jwk["kid"]) <= _LONGEST_KID:
        raise TypeError("a kid is no name")
    public = _public(jwk)
    return Key(algorithm, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), public)


def _public(jwk: dict[str, Any]) -> PublicKeyTypes:
    match jwk["kty"]:
        case "EC":
            return _elliptic(jwk)
        case "OKP":
            return _edwards(jwk)
        case _:
            return _rsa(jwk)


def _elliptic(jwk: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    """Returns the key. Raises ValueError for a point that is not on the curve."""
    curve = _CURVES[jwk["crv"]]
    x, y = base64url(jwk["x"]), base64url(jwk["y"])
    if not len(x) == len(y) == curve.key_size // 8:
        raise ValueError("a coordinate has not the length of its curve")
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()


def _edwards(jwk: dict[str, Any]) -> ed25519.Ed25519PublicKey:
    x = base64url(jwk["x"])
    y = int.from_bytes(x, "little") & (2**255 - 1)
    if y >= _ED25519_PRIME or y in _SMALL_ORDER:
        raise ValueError("a point is of small order, or not in its one form")
    return ed25519.Ed25519PublicKey.from_public_bytes(x)


def _rsa(jwk: dict[str, Any]) -> rsa.RSAPublicKey:
    modulus, exponent = int.from_bytes(base64url(jwk["n"])), int.from_bytes(base64url(jwk["e"]))
    if modulus.bit_length() not in _RSA_BITS or modulus % 2 == 0 or exponent not in _RSA_EXPONENTS:
        raise ValueError("an RSA key is weak")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()
