"""Development certificates: a CA for the mesh, with one certificate per process, and another for the public one.

The CAs' private keys are thrown away: when a certificate is missing or near its end, all are made anew.
In containers: python -m scripts.stack.certificates CERTIFICATES SECRETS; signing_key_secret goes to the second folder.
"""

import ipaddress
import secrets
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scripts.stack.settings import SERVERS

PEERS = ("edge", *SERVERS, "postgres", "nats")
LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
GROUP_READABLE = 0o640
"""The mode of keys in containers, whose users differ; Postgres and its clients take such a key only from root."""
_LOOPBACK = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]


def issue(folder: Path, key_mode: int = 0o600) -> None:
    """Writes ca.pem and <peer>.pem and .key, edge-ca.pem and public.pem and .key, unless they are there and good."""
    folder.mkdir(parents=True, exist_ok=True)
    if _good(folder):
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        new = Path(temporary)
        mesh = Authority("Drawbridge development mesh CA")
        for peer in PEERS:
            mesh.sign(new / peer, peer, names_of(peer))
        public = Authority("Drawbridge development public CA")
        public.sign(new / "public", "localhost", [x509.DNSName("localhost"), *_LOOPBACK])
        for key in new.glob("*.key"):
            key.chmod(key_mode)
        (folder / "ca.pem").unlink(missing_ok=True)  # the mark of what is whole: it goes first and comes last
        public.save(new / "edge-ca.pem")
        for file in new.iterdir():
            file.replace(folder / file.name)
        mesh.save(new / "ca.pem").replace(folder / "ca.pem")


def names_of(peer: str) -> list[x509.GeneralName]:
    """Returns what a certificate of the mesh says of whose it is: a SPIFFE id, and where it is reached."""
    spiffe_id = x509.UniformResourceIdentifier(f"spiffe://drawbridge/{peer}")
    return [spiffe_id, x509.DNSName(peer), x509.DNSName("localhost"), *_LOOPBACK]


def _good(folder: Path) -> bool:
    paths = [folder / f"{name}.pem" for name in ("ca", *PEERS, "edge-ca", "public")]
    end = datetime.now(UTC) + RENEW_BEFORE
    return all(
        path.exists() and x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc > end for path in paths
    )


def _keep_secret(path: Path) -> None:
    """Writes something random, unless it is there: it must live as long as the data that it protects."""
    if not path.exists():
        new = path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(secrets.token_urlsafe(32))
        new.chmod(GROUP_READABLE)
        new.replace(path)


class Authority:
    """A certificate authority that lives as long as this object."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(name)
        self._certificate = (
            _builder(self._subject, self._subject, self._key.public_key(), LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def save(self, path: Path) -> Path:
        path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def sign(self, stem: Path, name: str, names: Sequence[x509.GeneralName], lifetime: timedelta = LIFETIME) -> None:
        """Writes <stem>.key, readable by its owner only, and <stem>.pem."""
        key = ec.generate_private_key(ec.SECP256R1())
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(_name(name), self._subject, key.public_key(), lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        key_path = stem.with_name(stem.name + ".key")
        key_path.touch(mode=0o600)
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        stem.with_name(stem.name + ".pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    issue(Path(sys.argv[1]), GROUP_READABLE)
    _keep_secret(Path(sys.argv[2], "signing_key_secret"))
