"""
Tests of L{smtpreuse.tls.identity}.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.load import settings_of
from smtpreuse.errors import IdentityError
from smtpreuse.tls.identity import (
    FILE_LIMIT,
    Chain,
    Holds,
    Identity,
    IdentityFile,
    identity_files,
    load_identity,
    read_files,
)
from tests.tls.identities import ECDSA, ISSUER, RSA, certificates_of, chain_of, identity_of, key_of

CHAINS = IdentityFile(parameter="smtpd_tls_chain_files", path="chain.pem", holds=Holds.CHAINS)
MORE = IdentityFile(parameter="smtpd_tls_chain_files", path="more.pem", holds=Holds.CHAINS)
KEY = IdentityFile(parameter="smtpd_tls_key_file", path="key.pem", holds=Holds.KEY)
CERTIFICATE = IdentityFile(parameter="smtpd_tls_cert_file", path="cert.pem", holds=Holds.CERTIFICATES)
OTHER = ISSUER.issue_cert("mx.example.com")


def encrypted(leaf: trustme.LeafCert, form: PrivateFormat) -> bytes:
    """Its key, with a password."""
    key = load_pem_private_key(key_of(leaf), None)
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))


class IdentityFilesTests(SynchronousTestCase):
    """Which files there are to be read is a question of configuration alone."""

    def test_none(self) -> None:
        """Where TLS is not offered none is, whatever else is set."""
        self.assertEqual(identity_files(settings_of()), ())
        self.assertEqual(identity_files(settings_of(smtpd_tls_cert_file="/nowhere", smtpd_tls_chain_files="/x")), ())

    def test_chain_files(self) -> None:
        """They go before the others, in their order."""
        settings = settings_of(
            smtpd_tls_security_level="may", smtpd_tls_chain_files="/a, /b", smtpd_tls_cert_file="/c",
        )  # fmt: skip
        name = "smtpd_tls_chain_files"
        self.assertEqual(
            identity_files(settings),
            tuple(IdentityFile(parameter=name, path=path, holds=Holds.CHAINS) for path in ("/a", "/b")),
        )

    def test_pair(self) -> None:
        """Without a file of its own the key is in that of the certificate, and so is what is wrong with it."""
        for values, key, name in (
            ({}, "/c", "cert"), ({"smtpd_tls_key_file": ""}, "/c", "cert"), ({"smtpd_tls_key_file": "/k"}, "/k", "key")
        ):
            settings = settings_of(smtpd_tls_security_level="encrypt", smtpd_tls_cert_file="/c", **values)
            self.assertEqual(identity_files(settings), (
                IdentityFile(parameter=f"smtpd_tls_{name}_file", path=key, holds=Holds.KEY),
                IdentityFile(parameter="smtpd_tls_cert_file", path="/c", holds=Holds.CERTIFICATES),
            ))  # fmt: skip


class ReadFilesTests(SynchronousTestCase):
    """Files are read whole, or there is an error that names them."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def file(self, octets: bytes) -> IdentityFile:
        """One with this in it."""
        path = self.directory / "chain.pem"
        path.write_bytes(octets)
        return IdentityFile(parameter="smtpd_tls_chain_files", path=str(path), holds=Holds.CHAINS)

    def test_contents(self) -> None:
        """What is in them, beside each."""
        file = self.file(b"x" * FILE_LIMIT)
        self.assertEqual(read_files([file, file]), ((file, b"x" * FILE_LIMIT),) * 2)

    def test_unreadable(self) -> None:
        """With the reason of the system, and the parameter."""
        for path, reason in (("missing", "No such file or directory"), ("", "Is a directory")):
            file = IdentityFile(parameter="smtpd_tls_key_file", path=str(self.directory / path), holds=Holds.KEY)
            error = self.assertRaises(IdentityError, read_files, [file])
            allowed = "(allowed: a file in PEM with one private key; keys are not encrypted)"
            self.assertEqual(str(error), f"cannot be read ({reason}): {file.path} {allowed}")
            self.assertEqual(error.parameter, "smtpd_tls_key_file")

    def test_too_long(self) -> None:
        """What does not end is not read to its end."""
        error = self.assertRaises(IdentityError, read_files, [self.file(b"x" * (FILE_LIMIT + 1))])
        self.assertIn("more than 1048576 octets", str(error))


class LoadIdentityTests(SynchronousTestCase):
    """Whole chains are taken as they stand, and everything else is refused with its file and its parameter."""

    def refused(self, *contents: tuple[IdentityFile, bytes]) -> str:
        """Why; and nothing of what was in the files is in it."""
        error = self.assertRaises(IdentityError, load_identity, contents)
        self.assertIn(error.parameter, {file.parameter for file, _ in contents})
        self.assertIn(" (allowed: a file in PEM with ", str(error))
        if "a private key that" in str(error):
            self.assertIsNone(error.__cause__)
            self.assertTrue(error.__context__ is None or error.__suppress_context__)
        for _, octets in contents:
            for line in octets.splitlines():
                if len(line) > 40:
                    self.assertNotIn(line.decode("ascii", "replace"), repr(error))
        return str(error).partition(" (allowed")[0]

    def certificates(self, identity: Identity) -> list[list[bytes]]:
        """In PEM, of each chain."""
        return [[each.public_bytes(Encoding.PEM) for each in chain.certificates] for chain in identity.chains]

    def test_chains(self) -> None:
        """Several in one file; certificates stay in their order, with what stands between them left out."""
        octets = b"a comment\n" + chain_of(RSA) + b"\n\n# another\n" + chain_of(ECDSA)
        identity = load_identity([(CHAINS, octets)])
        self.assertEqual([chain.kind for chain in identity.chains], ["RSA", "ECDSA"])
        expected = [[pem.bytes() for pem in leaf.cert_chain_pems] for leaf in (RSA, ECDSA)]
        self.assertEqual(self.certificates(identity), expected)
        self.assertEqual([len(chain) for chain in expected], [2, 2])

    def test_files_are_one(self) -> None:
        """Files count as if they were one, cut between any two objects."""
        whole = load_identity([(CHAINS, chain_of(RSA) + chain_of(ECDSA))])
        parts = [key_of(RSA), certificates_of(RSA), key_of(ECDSA), *(pem.bytes() for pem in ECDSA.cert_chain_pems)]
        self.assertEqual(load_identity([(CHAINS, part) for part in parts]), whole)

    def test_pair(self) -> None:
        """A key and certificates in two files, or in one in either order."""
        expected = identity_of(RSA)
        for key, certificate in (
            (key_of(RSA), certificates_of(RSA)), (chain_of(RSA), chain_of(RSA)),
            (certificates_of(RSA) + key_of(RSA), certificates_of(RSA) + key_of(RSA)),
        ):
            identity = load_identity([(KEY, key), (CERTIFICATE, certificate)])
            self.assertEqual(identity, expected)

    def test_algorithms(self) -> None:
        """Keys of every form that servers have."""
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            for leaf in (RSA, ECDSA):
                key = load_pem_private_key(key_of(leaf), None).private_bytes(Encoding.PEM, form, NoEncryption())
                parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
                self.assertEqual(load_identity([(CHAINS, parameters + key + certificates_of(leaf))]), identity_of(leaf))

    def test_order(self) -> None:
        """Each key stands before its certificate."""
        self.assertEqual(
            self.refused((CHAINS, certificates_of(RSA) + key_of(RSA))),
            "a certificate before the first private key: chain.pem",
        )
        for octets in (key_of(RSA) + chain_of(ECDSA), chain_of(ECDSA) + key_of(RSA), key_of(RSA)):
            self.assertEqual(
                self.refused((CHAINS, octets)), "a private key without its certificate behind it: chain.pem"
            )

    def test_not_matching(self) -> None:
        """A key of another certificate, of the same algorithm or not."""
        for wrong in (OTHER, RSA):
            self.assertEqual(
                self.refused((KEY, key_of(wrong)), (CERTIFICATE, certificates_of(ECDSA))),
                "a private key that is not that of the certificate in cert.pem: key.pem",
            )
        reverse = key_of(ECDSA) + b"".join(pem.bytes() for pem in reversed(ECDSA.cert_chain_pems))
        self.assertIn("not that of the certificate", self.refused((CHAINS, reverse)))

    def test_twice(self) -> None:
        """Of two chains for one algorithm OpenSSL would show the last."""
        self.assertEqual(
            self.refused((CHAINS, chain_of(ECDSA)), (MORE, chain_of(OTHER))),
            "a second private key for ECDSA: more.pem",
        )
        self.assertEqual(
            self.refused((KEY, key_of(RSA) + key_of(ECDSA)), (CERTIFICATE, certificates_of(RSA))),
            "more than one private key (smtpd_tls_chain_files takes several): key.pem",
        )

    def test_empty(self) -> None:
        """A file without what it is to hold."""
        for octets in (b"", b"no PEM\n", certificates_of(RSA)):
            self.assertEqual(
                self.refused((KEY, octets), (CERTIFICATE, certificates_of(RSA))), "no private key: key.pem"
            )
        self.assertEqual(self.refused((KEY, key_of(RSA)), (CERTIFICATE, key_of(RSA))), "no certificate: cert.pem")
        self.assertEqual(self.refused((CHAINS, b"")), "neither a private key nor a certificate: chain.pem")

    def test_encrypted(self) -> None:
        """There is nobody to be asked for a password."""
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            octets = encrypted(RSA, form) + certificates_of(RSA)
            self.assertEqual(self.refused((CHAINS, octets)), "a private key that is encrypted: chain.pem")

    def test_other_keys(self) -> None:
        """Keys that no certificate of a server has, or none that is taken today."""
        for key in (x25519.X25519PrivateKey.generate(), dsa.generate_private_key(2048)):
            octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self.assertEqual(
                self.refused((KEY, octets), (CERTIFICATE, certificates_of(RSA))),
                "a private key that TLS servers do not use: key.pem",
            )

    def test_kinds(self) -> None:
        """The word for each algorithm, as it stands in errors."""
        for key, kind in (
            (ec.generate_private_key(ec.SECP384R1()), "ECDSA"), (rsa.generate_private_key(65537, 2048), "RSA"),
            (ed25519.Ed25519PrivateKey.generate(), "Ed25519"), (ed448.Ed448PrivateKey.generate(), "Ed448"),
        ):
            self.assertEqual(Chain(certificates=(), key=key).kind, kind)

    def test_other_objects(self) -> None:
        """Something else in PEM is a mistake: whoever put it there expects something of it."""
        octets = chain_of(RSA) + b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
        self.assertEqual(
            self.refused((CHAINS, octets)), "a PEM object that does not belong here (CERTIFICATE REQUEST): chain.pem"
        )

    def test_broken(self) -> None:
        """What cannot be understood is told as key or certificate, without a word of what is in it."""
        junk = b"AAAA" * 16
        key = b"-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n" % junk
        self.assertEqual(
            self.refused((CHAINS, key + certificates_of(RSA))), "a private key that cannot be understood: chain.pem"
        )
        certificate = b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n" % junk
        self.assertEqual(
            self.refused((CHAINS, key_of(RSA) + certificate)), "a certificate that cannot be understood: chain.pem"
        )

    @given(st.integers(1, 8000))
    def test_cut(self, place: int) -> None:
        """A file that was cut somewhere gives a whole identity or an error, and never anything else."""
        octets = chain_of(RSA) + chain_of(ECDSA)
        try:
            identity = load_identity([(CHAINS, octets[:place])])
        except IdentityError:
            return
        for chain, leaf in zip(identity.chains, (RSA, ECDSA), strict=False):
            self.assertEqual(chain.certificates[0].public_bytes(Encoding.PEM), leaf.cert_chain_pems[0].bytes())

    def test_secret(self) -> None:
        """The key is in no text of the value, and does not leave the process with it by accident."""
        identity = identity_of(RSA, ECDSA)
        self.assertNotIn("key", repr(identity).lower())
        self.assertRaises(TypeError, pickle.dumps, identity)


class KeyTests(SynchronousTestCase):
    """A key's own limits."""

    def test_curve(self) -> None:
        """A key of another curve is no key of the certificate."""
        key = ec.generate_private_key(ec.SECP384R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self.assertRaises(IdentityError, load_identity, [(CHAINS, key + certificates_of(ECDSA))])
