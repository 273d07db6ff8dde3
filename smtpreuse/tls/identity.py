"""
What a TLS server shows of itself: private keys, and the certificates that go with them.

Which files these are in is one question (L{identity_files}: configuration alone), what is in them another
(L{load_identity}: octets alone), so that a process that may not read the files can be given what is in them, and none
reads a key that does not make TLS. The rules are Postfix's (C{postconf(5)}, C{smtpd_tls_chain_files}).

Nothing of a key gets into an error, a log or a C{repr}: an error says which file, and what is wrong in our own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from smtpreuse.config.settings import Settings
from smtpreuse.errors import IdentityError

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey
"""The keys whose certificates TLS servers show."""

# Octets of one file: the largest chains have a few dozen KiB, and what never ends is no chain.
FILE_LIMIT = 1024 * 1024

_OBJECT = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_BEGIN = re.compile(rb"^-----BEGIN ", re.MULTILINE)
_CERTIFICATES = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE"})
_KEYS = frozenset({b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY", b"DSA PRIVATE KEY"})
# What programs put beside a key; OpenSSL has no use for it.
_PARAMETERS = frozenset({b"EC PARAMETERS", b"DH PARAMETERS"})


class Holds(Enum):
    """What a file is to hold, in PEM."""

    CHAINS = "keys, each followed by its certificate and those of its issuers"
    KEY = "one private key"
    CERTIFICATES = "our certificate, followed by those of its issuers"


@frozen(kw_only=True)
class IdentityFile:
    """
    One file.

    @ivar parameter: that names it.
    """

    parameter: str
    path: str
    holds: Holds


@frozen(kw_only=True)
class Chain:
    """
    One key and its certificates, our own first.
    """

    certificates: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False, eq=False)

    @property
    def kind(self) -> str:
        """The algorithm of the key: C{RSA}, C{ECDSA}, C{Ed25519} or C{Ed448}."""
        return _kind(self.key)


@frozen
class Identity:
    """
    What one server shows: at least one chain, at most one for each algorithm.
    """

    chains: tuple[Chain, ...]


def identity_files(settings: Settings) -> tuple[IdentityFile, ...]:
    """The files that clients' TLS needs, in the order of their reading; none where it is not offered, or cannot be."""
    if settings.smtpd_tls_security_level == "none":
        return ()
    if settings.smtpd_tls_chain_files:
        return tuple(
            IdentityFile(parameter="smtpd_tls_chain_files", path=path, holds=Holds.CHAINS)
            for path in settings.smtpd_tls_chain_files
        )
    certificate = settings.smtpd_tls_cert_file
    if not certificate:
        return ()
    key = settings.smtpd_tls_key_file or certificate
    # Where they are one file its owner has named it once.
    parameter = "smtpd_tls_cert_file" if key == certificate else "smtpd_tls_key_file"
    return (
        IdentityFile(parameter=parameter, path=key, holds=Holds.KEY),
        IdentityFile(parameter="smtpd_tls_cert_file", path=certificate, holds=Holds.CERTIFICATES),
    )


def read_files(files: Sequence[IdentityFile]) -> tuple[tuple[IdentityFile, bytes], ...]:
    """
    Read them all.

    @raise IdentityError: when one cannot be read.
    """
    return tuple((file, _read(file)) for file in files)


def load_identity(contents: Sequence[tuple[IdentityFile, bytes]]) -> Identity:
    """
    Make an identity of what is in the files, in the order of L{identity_files}.

    @raise IdentityError: when there is no whole chain in them, or more than that.
    """
    chains: list[Chain] = []
    for key_file, key, certificates in _chains(contents):
        if not certificates:
            raise _error(key_file, "a private key without its certificate behind it")
        leaf_file, leaf = certificates[0]
        if leaf.public_key() != key.public_key():
            raise _error(key_file, f"a private key that is not that of the certificate in {leaf_file.path}")
        chain = Chain(key=key, certificates=tuple(certificate for _, certificate in certificates))
        if chain.kind in (other.kind for other in chains):
            raise _error(key_file, f"a second private key for {chain.kind}")
        chains.append(chain)
    return Identity(tuple(chains))


_Certificates = list[tuple[IdentityFile, x509.Certificate]]


def _chains(
    contents: Sequence[tuple[IdentityFile, bytes]],
) -> Iterator[tuple[IdentityFile, PrivateKey, _Certificates]]:
    """Each key with the certificates behind it; the file is the key's."""
    found: list[tuple[IdentityFile, PrivateKey, _Certificates]] = []
    for file, octets in contents:
        empty = True
        for label, block in _objects(file, octets):
            if label in _KEYS and file.holds is not Holds.CERTIFICATES:
                if file.holds is Holds.KEY and not empty:
                    raise _error(file, "more than one private key (smtpd_tls_chain_files takes several)")
                found.append((file, _key(file, block), []))
            elif label in _CERTIFICATES and file.holds is not Holds.KEY:
                if not found:
                    raise _error(file, "a certificate before the first private key")
                found[-1][2].append((file, _certificate(file, block)))
            else:
                continue
            empty = False
        if empty:
            raise _error(file, _MISSING[file.holds])
    yield from found


_MISSING = {
    Holds.CHAINS: "neither a private key nor a certificate",
    Holds.KEY: "no private key",
    Holds.CERTIFICATES: "no certificate",
}


def _read(file: IdentityFile) -> bytes:
    try:
        with open(file.path, "rb") as source:
            octets = source.read(FILE_LIMIT + 1)
    except OSError as error:
        raise _error(file, f"cannot be read ({error.strerror})") from error
    if len(octets) > FILE_LIMIT:
        raise _error(file, f"more than {FILE_LIMIT} octets")
    return octets


def _objects(file: IdentityFile, octets: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The objects in a file, each with its label; what stands between them is comment."""
    found = list(_OBJECT.finditer(octets))
    if len(found) != len(_BEGIN.findall(octets)):
        raise _error(file, "a PEM object that is not whole")
    for match in found:
        label = match[1]
        if label not in _KEYS | _CERTIFICATES | _PARAMETERS:
            raise _error(file, f"a PEM object that does not belong here ({label.decode('ascii')})")
        yield label, match[0]


def _key(file: IdentityFile, block: bytes) -> PrivateKey:
    # Reasons of the library are not passed on: they may be about what is in the key.
    if b"ENCRYPTED" in block:
        raise _error(file, "a private key that is encrypted")
    try:
        key = load_pem_private_key(block, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _error(file, "a private key that cannot be understood") from None
    if not isinstance(key, PrivateKey):
        raise _error(file, "a private key that TLS servers do not use")
    return key


def _kind(key: PrivateKey) -> str:
    match key:
        case RSAPrivateKey():
            return "RSA"
        case EllipticCurvePrivateKey():
            return "ECDSA"
        case Ed25519PrivateKey():
            return "Ed25519"
        case _:
            return "Ed448"


def _certificate(file: IdentityFile, block: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(block.replace(b"X509 CERTIFICATE", b"CERTIFICATE"))
        certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _error(file, "a certificate that cannot be understood") from error
    return certificate


def _error(file: IdentityFile, what: str) -> IdentityError:
    allowed = f"a file in PEM with {file.holds.value}; keys are not encrypted"
    return IdentityError(file.parameter, f"{what}: {file.path} (allowed: {allowed})")
