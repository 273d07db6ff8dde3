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
        """The best MX host decides, by whole labels."""
        self.assertEqual(site("example.com", (5, "aspmx.l.google.com"), (1, "alt1.aspmx.l.google.com")), "google")
        self.assertEqual(site("example.com", (1, "mx.example.com"), (5, "aspmx.l.google.com")),
                         "aspmx.l.google.com,mx.example.com")
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

    def test_equal_best(self) -> None:
        """Among equals the first name decides, so that the order of an answer does not."""
        records = [(1, "aspmx.l.google.com"), (1, "zz.example.com")]
        self.assertEqual(site("a.test", *records), "google")
        self.assertEqual(site("a.test", *reversed(records)), "google")

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
