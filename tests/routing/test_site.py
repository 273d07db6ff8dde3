"""
Tests of L{smtpreuse.routing.site}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.records import MXRecord
from smtpreuse.routing.site import PROVIDERS, provider, site_of


def site(nexthop: str, *records: tuple[int, str]) -> str:
    """The name of the site."""
    return site_of(Nexthop.parse(nexthop), [MXRecord(preference, host) for preference, host in records]).name


class SiteTests(SynchronousTestCase):
    """Limits are shared by who shares the servers."""

    def test_provider(self) -> None:
        """A domain whose MX hosts are all a provider's belongs to it, by whole labels."""
        self.assertEqual(site("example.com", (5, "aspmx.l.google.com"), (1, "alt1.aspmx.l.google.com")), "google")
        self.assertEqual(site("example.com", (1, "mx.example.com"), (5, "aspmx.l.google.com")),
                         "aspmx.l.google.com,mx.example.com")
        self.assertEqual(site("example.com", (1, "aspmx.l.google.com"), (5, "alt1.aspmx.l.googlemail.com")), "google")
        self.assertEqual(site("example.com", (1, "example-com.mail.protection.outlook.com")), "outlook")
        self.assertEqual(site("example.com", (1, "mx.notgoogle.com")), "mx.notgoogle.com")

    def test_longest_suffix(self) -> None:
        """Of two suffixes the longer one is meant."""
        self.assertEqual(provider("example-com.olc.protection.outlook.com"), "hotmail")
        self.assertIsNone(provider("com"))
        self.assertIsNone(provider(""))

    def test_mx_set(self) -> None:
        """Else the set of MX hosts, whatever the order and preferences."""
        self.assertEqual(site("a.test", (1, "mx2.test"), (1, "mx1.test")), "mx1.test,mx2.test")
        self.assertEqual(site("b.test", (7, "mx1.test"), (3, "mx2.test"), (9, "mx1.test")), "mx1.test,mx2.test")

    def test_provider_and_others(self) -> None:
        """Naming a provider's host beside others makes nobody the provider: its site would bear what they do."""
        for other in ("mx.example.com", "mx1.example.yahoodns.net", "192.0.2.1"):
            for preference in (0, 1, 9):
                name = site("example.com", (1, "aspmx.l.google.com"), (preference, other))
                self.assertEqual(name, ",".join(sorted(["aspmx.l.google.com", other])))

    def test_long(self) -> None:
        """A name is bounded, and still tells different sets apart."""
        hosts = [(n, f"mail{n:03}.{'x' * 60}.example.com") for n in range(100)]
        names = {site("example.com", *hosts), site("example.com", *hosts[:-1]), site("example.com", *hosts[:4])}
        self.assertEqual(len(names), 3)
        self.assertLess(max(map(len, names)), 300)
        self.assertTrue(min(names).startswith("mail000.xxx"))
        self.assertEqual(site("a.test", *hosts), site("b.test", *reversed(hosts)))
        self.assertTrue(site("a.test:2525", *hosts).endswith(":2525"))

    def test_without_mx(self) -> None:
        """A relay host, an address and a domain without MX records are sites by their own text."""
        for text in ("[127.0.0.1]:2525", "[relay.example.com]", "example.com", "example.com:587"):
            self.assertEqual(site(text), text)

    def test_port(self) -> None:
        """Another port is another server."""
        self.assertEqual(site("a.test:2525", (1, "mx.test")), "mx.test:2525")

    def test_table(self) -> None:
        """Suffixes are lower case without a dot around them."""
        for suffix in PROVIDERS:
            self.assertEqual(suffix, suffix.lower().strip("."))
            self.assertEqual(provider(f"x.{suffix}"), PROVIDERS[suffix])
