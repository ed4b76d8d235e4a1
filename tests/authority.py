"""Certificates for tests: a CA, and what it signs, as files."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates and writes them to `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _subject(name)
        everyone = x509.BasicConstraints(ca=True, path_length=None)
        certificate = self._builder(self._subject, self._key.public_key(), 30).add_extension(
            everyone, critical=True
        )
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(_pem(certificate.sign(self._key, hashes.SHA256())))

    def issue(
        self, name: str, names: Sequence[str] = (), *, days: float = 5, began: float = -10
    ) -> tuple[Path, Path]:
        """Files of a certificate and its key.

        Args:
            names: for which names and addresses it is; default: `name`.
            days: until its end, from now; negative: it has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_subject(name), key.public_key(), days, began).add_extension(
            x509.SubjectAlternativeName([_general(text) for text in names or (name,)]),
            critical=False,
        )
        cert, own = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        own.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert, own

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        days: float,
        began: float = -10,
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=began))
            .not_valid_after(now + timedelta(days=days))
        )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
