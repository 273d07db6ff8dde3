"""
Tests of L{smtpreuse.roles.configuration}; a whole configuration is looked at in C{tests.test_tap} and
C{tests.cli.test_conf}.
"""

from __future__ import annotations

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import BadValue, ConfigurationError
from smtpreuse.roles.configuration import endpoint, startable_settings


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
