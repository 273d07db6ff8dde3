"""
The certificate that a destination shows: one from files, or one made for this run.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, TLSVersion

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)


def self_made(host: str, now: datetime) -> bytes:
    """
    A key and a self-signed certificate for this host and 127.0.0.1, valid for a week around now.

    @param now: aware.
    @return: both in PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(IPv4Address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=6))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)


def server_options(pem: bytes) -> CertificateOptions:
    """
    What a TLS server needs, with sessions that can be resumed by ticket.

    @param pem: the key, the certificate, and the rest of its chain.
    @raise ValueError: when there is no certificate with its key in it.
    """
    blocks = _BLOCK.findall(pem)
    if not blocks:
        raise ValueError("no certificate found")
    _check(pem, blocks)
    own = PrivateCertificate.loadPEM(pem)  # type: ignore[no-untyped-call]  # Twisted has no types for it
    chain = [Certificate.loadPEM(block).original for block in blocks[1:]]
    return CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        extraCertChain=chain,
        raiseMinimumTo=TLSVersion.TLSv1_2,
        enableSessions=True,
        enableSessionTickets=True,
    )


def _check(pem: bytes, blocks: list[bytes]) -> None:
    """Find what OpenSSL would stumble over, in words that its user knows."""
    try:
        certificate, *_ = [x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError as error:
        raise ValueError("a certificate that cannot be read") from error
    found = _KEY.search(pem)
    if found is None:
        raise ValueError("no key found")
    try:
        key = load_pem_private_key(found[0], None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("a key that cannot be read, or only with a password") from error
    if key.public_key() != certificate.public_key():
        raise ValueError("the key is not that of the certificate")


def from_files(certificate: str, key: str) -> CertificateOptions:
    """
    @param certificate: path of the certificate and its chain, in PEM.
    @param key: path of the key; empty when it is in the same file.
    @raise OSError: when a file cannot be read.
    @raise ValueError: when there is no certificate with its key in them.
    """
    with open(certificate, "rb") as source:
        pem = source.read()
    if key:
        with open(key, "rb") as source:
            pem = source.read() + b"\n" + pem
    return server_options(pem)


def made_now() -> CertificateOptions:
    """For C{sink.test}, made at this moment, never written to disk."""
    return server_options(self_made("sink.test", datetime.now(UTC)))
