"""
Tests of L{smtpreuse.cli.certificate}.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.certificate import from_files, made_now, self_made, server_options

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class SelfMadeTests(SynchronousTestCase):
    """A destination has a certificate when nobody gave it one."""

    def test_names_and_dates(self) -> None:
        """It is for the host and the loopback address, and valid now."""
        certificate = x509.load_pem_x509_certificate(self_made("sink.test", NOW))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["sink.test"])
        self.assertEqual([str(name) for name in names.get_values_for_type(x509.IPAddress)], ["127.0.0.1"])
        self.assertEqual(certificate.not_valid_before_utc, NOW - timedelta(days=1))
        self.assertEqual(certificate.not_valid_after_utc, NOW + timedelta(days=6))

    def test_new_each_time(self) -> None:
        """Key and certificate are never the same."""
        self.assertNotEqual(self_made("sink.test", NOW), self_made("sink.test", NOW))

    def test_usable(self) -> None:
        """A context for a server can be made of it."""
        made_now().getContext().check_privatekey()


class FromFilesTests(SynchronousTestCase):
    """A destination may show a given certificate."""

    def test_one_file(self) -> None:
        """The key may be in the same file."""
        path = self.mktemp()
        Path(path).write_bytes(self_made("sink.test", NOW))
        from_files(path, "").getContext().check_privatekey()

    def test_two_files(self) -> None:
        """The key may be in a file of its own, and the chain follows the certificate."""
        key, begin, certificate = self_made("sink.test", NOW).partition(b"-----BEGIN CERTIFICATE-----")
        other = b"-----BEGIN CERTIFICATE-----" + self_made("ca.test", NOW).partition(begin)[2]
        key_path, chain_path = self.mktemp(), self.mktemp()
        Path(key_path).write_bytes(key)
        Path(chain_path).write_bytes(begin + certificate + other)
        options = from_files(chain_path, key_path)
        options.getContext().check_privatekey()
        self.assertEqual([link.get_subject().CN for link in options.extraCertChain], ["ca.test"])

    def test_not_there(self) -> None:
        """A file that is not there is said to be so."""
        self.assertRaises(OSError, from_files, "/nowhere/cert.pem", "")

    def test_no_certificate(self) -> None:
        """A file without a certificate is refused."""
        self.assertRaises(ValueError, server_options, b"hello")

    def test_unusable(self) -> None:
        """What does not go together, or is damaged, is refused in words, and not in those of OpenSSL."""
        key, begin, certificate = self_made("sink.test", NOW).partition(b"-----BEGIN CERTIFICATE-----")
        other = self_made("other.test", NOW).partition(begin)[0]
        for pem, expected in (
            (other + begin + certificate, "the key is not that of the certificate"),
            (begin + certificate, "no key found"),
            (key.replace(b"M", b"N") + begin + certificate, "a key that cannot be read, or only with a password"),
            (key + begin + certificate.replace(b"MII", b"NII", 1), "a certificate that cannot be read"),
        ):
            with self.assertRaises(ValueError) as caught:
                server_options(pem)
            self.assertEqual(str(caught.exception), expected)
