"""
Tests of L{smtpreuse.roles.configuration}; a whole configuration is looked at in C{tests.test_tap} and
C{tests.cli.test_conf}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.load import settings_of
from smtpreuse.config.settings import Settings
from smtpreuse.errors import BadValue, ConfigurationError, StartError
from smtpreuse.roles import configuration
from smtpreuse.roles.configuration import endpoint, identity_of, startable_settings
from smtpreuse.tls.identity import Identity
from tests.tls.identities import ECDSA, RSA, chain_of
from tests.tls.identities import identity_of as identity_of_leaves


class EndpointTests(SynchronousTestCase):
    """Texts become endpoints, or errors that say why not."""

    def why(self, text: str) -> str:
        """What is wrong with it."""
        with self.assertRaises(BadValue) as caught:
            endpoint(text)
        return str(caught.exception)

    def test_good(self) -> None:
        """What Twisted can listen on."""
        for text in ("tcp:2525:interface=127.0.0.1", "tcp:0", "tcp6:65535", "unix:/run/mail:mode=660"):
            self.assertTrue(IStreamServerEndpoint.providedBy(endpoint(text)), text)

    def test_ports(self) -> None:
        """A port that no socket can have is found before one is asked for it."""
        for text in ("tcp:65536", "tcp:99999:interface=127.0.0.1", "tcp6:70000", "tcp:-1"):
            self.assertEqual(self.why(text), f"not an endpoint of Twisted (ports end at 65535): {text}")

    def test_outside_of_activation(self) -> None:
        """A socket of systemd that was not passed is told as such, and not as a fault of some list."""
        for text in ("systemd:domain=INET:index=0", "systemd:domain=INET:name=mail"):
            self.assertEqual(
                self.why(text),
                "not an endpoint of Twisted (systemd has passed no such socket: was this started by its socket unit?): "
                f"{text}",
            )

    def test_others(self) -> None:
        """Whatever else the parser stumbles over is said in its words."""
        self.assertIn("(", self.why("nowhere:1"))


class StartableTests(SynchronousTestCase):
    """All errors at once, whichever part finds them."""

    def test_every_part(self) -> None:
        """The table's, the settings', the policies' and the endpoints'."""
        overrides = [
            "session_limit=x", "minimal_backoff_time=2h", "smtp_tls_policy_maps=inline:{a=must}", "listen=tcp:70000",
        ]  # fmt: skip
        with self.assertRaises(ConfigurationError) as caught:
            startable_settings("/dev/null", overrides)
        names = [problem.split(": ")[1] for problem in caught.exception.problems]
        self.assertEqual(names, ["session_limit", "minimal_backoff_time", "smtp_tls_policy_maps", "listen"])

    def test_keys(self) -> None:
        """And that of the files of keys, where they are asked for; at a start they are not opened here."""
        overrides = ["session_limit=x", "smtpd_tls_security_level=may", "smtpd_tls_cert_file=/nonexistent"]
        for keys, expected in ((False, ["session_limit"]), (True, ["session_limit", "smtpd_tls_cert_file"])):
            with self.assertRaises(ConfigurationError) as caught:
                startable_settings("/dev/null", overrides, keys=keys)
            self.assertEqual([problem.split(": ")[1] for problem in caught.exception.problems], expected)


class IdentityTests(SynchronousTestCase):
    """What clients are shown is read and tried, or the start ends with the file and its parameter."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()

    def settings(self, octets: bytes) -> Settings:
        """With a file that has this in it."""
        self.path.write_bytes(octets)
        return settings_of(smtpd_tls_security_level="may", smtpd_tls_chain_files=str(self.path))

    def test_none(self) -> None:
        """Where TLS is not offered nothing is read."""
        self.assertIsNone(identity_of(settings_of(smtpd_tls_cert_file="/nonexistent")))

    def test_good(self) -> None:
        """As it stands in the file."""
        self.assertEqual(identity_of(self.settings(chain_of(RSA) + chain_of(ECDSA))), identity_of_leaves(RSA, ECDSA))

    def test_bad(self) -> None:
        """Where it was set, what is wrong, and what is allowed."""
        error = self.assertRaises(StartError, identity_of, self.settings(b""))
        self.assertEqual(
            str(error),
            f"command line: smtpd_tls_chain_files: neither a private key nor a certificate: {self.path} (allowed: a"
            " file in PEM with keys, each followed by its certificate and those of its issuers; keys are not"
            " encrypted)",
        )

    def test_unusable(self) -> None:
        """What only OpenSSL refuses is found as well."""
        settings = self.settings(chain_of(RSA))
        self.patch(configuration, "Contexts", _Refusing)
        error = self.assertRaises(StartError, identity_of, settings)
        self.assertEqual(str(error), f"command line: smtpd_tls_chain_files: OpenSSL does not: {self.path}")


class _Refusing:
    """In the place of L{Contexts}."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def context(self, settings: object) -> None:
        raise ValueError("OpenSSL does not")
