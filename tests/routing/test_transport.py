"""
Tests of L{smtpreuse.routing.transport}.
"""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.load import settings_of
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.routing import transport
from smtpreuse.routing.transport import Transport


def hops(**values: str) -> Transport:
    """The hops of these settings."""
    return Transport(settings_of(**values))


class DirectTests(SynchronousTestCase):
    """Without configuration mail goes to the recipient's domain."""

    def test_domain(self) -> None:
        """In lower case, without the final dot, whatever stands before the last @."""
        self.assertEqual(hops().hop("User@Example.COM"), "smtp:example.com")
        self.assertEqual(hops().hop("user@example.com."), "smtp:example.com")
        self.assertEqual(hops().hop('"a@b"@example.com'), "smtp:example.com")

    def test_literal(self) -> None:
        """An address in brackets is a server (RFC 5321 section 4.1.3)."""
        self.assertEqual(hops().hop("user@[192.0.2.1]"), "smtp:[192.0.2.1]")
        self.assertEqual(hops().hop("user@[IPv6:2001:DB8::1]"), "smtp:[2001:db8::1]")

    def test_unroutable(self) -> None:
        """What is no domain becomes an error, and never another port or host."""
        for address in (
            "", "user", "user@", "user@.", "@", "user@a..b", "user@example.com:2525", "user@[192.0.2.1]:26",
            "user@[mail.example.com]", "user@192.0.2.1", "user@[192.0.2.1", "user@ex ample.com",
            "user@b\u00fccher.example.com",
        ):
            self.assertTrue(hops().hop(address).startswith("error:5.1.3 "), address)

    def test_remembered(self) -> None:
        """A domain is worked out once, and the memory of domains is bounded."""
        made = hops()
        with mock.patch.object(transport, "_MOST_DOMAINS", 2):
            for number in range(5):
                self.assertEqual(made.hop(f"user@example{number}.com"), f"smtp:example{number}.com")
                self.assertLessEqual(len(made._domains), 2)
        self.assertIs(made.hop("a@example.com"), made.hop("b@example.com"))

    @given(st.text(max_size=30))
    def test_any_text(self, text: str) -> None:
        """Whatever an address is, it has a hop, and what is sent to has the form of a nexthop."""
        hop = hops().hop(f"user@{text}")
        if hop.startswith("smtp:"):
            self.assertEqual(f"smtp:{Nexthop.parse(hop[5:])}", hop)
            self.assertEqual(Nexthop.parse(hop[5:]).port, 25)
        else:
            self.assertTrue(hop.startswith("error:5.1.3 "))


class RelayhostTests(SynchronousTestCase):
    """With a relayhost all mail goes there."""

    def test_all(self) -> None:
        """Domains and addresses alike; what has no domain still is an error."""
        made = hops(relayhost="[192.0.2.9]:2525")
        self.assertEqual(made.hop("user@example.com"), "smtp:[192.0.2.9]:2525")
        self.assertEqual(made.hop("user@[192.0.2.1]"), "smtp:[192.0.2.9]:2525")
        self.assertTrue(made.hop("user").startswith("error:"))


class TransportMapsTests(SynchronousTestCase):
    """The table is asked as Postfix asks it (transport(5))."""

    def test_order(self) -> None:
        """Whole address, domain, parent domains with a dot from the nearest, then everything."""
        made = hops(
            relayhost="[192.0.2.9]",
            transport_maps="inline:{me@a.example.com=smtp:[one.test], a.example.com=smtp:[two.test],"
            " .a.example.com=smtp:[three.test], .example.com=smtp:[four.test], *=smtp:[five.test]}",
        )
        for address, nexthop in (
            ("Me@A.example.com", "[one.test]"),
            ("you@a.example.com", "[two.test]"),
            ("me@b.a.example.com", "[three.test]"),
            ("me@c.b.a.example.com", "[three.test]"),
            ("me@b.example.com", "[four.test]"),
            ("me@example.com", "[five.test]"),
            ("me@other.test", "[five.test]"),
        ):
            self.assertEqual(made.hop(address), f"smtp:{nexthop}", address)

    def test_not_found(self) -> None:
        """What the table does not have goes to the relayhost, or to its domain."""
        table = "inline:{example.com=discard:}"
        self.assertEqual(hops(transport_maps=table).hop("user@b.example.com"), "smtp:b.example.com")
        self.assertEqual(hops(transport_maps=table, relayhost="[r.test]").hop("user@b.example.com"), "smtp:[r.test]")

    def test_results(self) -> None:
        """discard, error and hold are handed on; smtp without a nexthop means the recipient's domain."""
        made = hops(
            relayhost="[192.0.2.9]",
            transport_maps="inline:{a.test=discard:, {b.test=error:5.1.1 no such user}, c.test=hold:, d.test=smtp:,"
            " {me@e.test=smtp:}, f.test=smtp:Mail.Example.COM:2525}",
        )
        self.assertEqual(made.hop("u@a.test"), "discard:")
        self.assertEqual(made.hop("u@b.test"), "error:5.1.1 no such user")
        self.assertEqual(made.hop("u@c.test"), "hold:")
        self.assertEqual(made.hop("u@d.test"), "smtp:d.test")
        self.assertEqual(made.hop("me@e.test"), "smtp:e.test")
        self.assertEqual(made.hop("u@f.test"), "smtp:mail.example.com:2525")

    def test_literal(self) -> None:
        """An address as domain is looked up as it is, and has no parents."""
        made = hops(transport_maps="inline:{[192.0.2.1]=smtp:[one.test], .2.1]=discard:}")
        self.assertEqual(made.hop("u@[192.0.2.1]"), "smtp:[one.test]")
        self.assertEqual(made.hop("u@[192.1.2.1]"), "smtp:[192.1.2.1]")

    def test_static_first(self) -> None:
        """A table that answers everything answers the whole address, before a domain in another table is looked up."""
        made = hops(transport_maps="inline:{example.com=discard:}, static:smtp:[one.test]")
        self.assertEqual(made.hop("u@example.com"), "smtp:[one.test]")
        self.assertTrue(made.hop("u").startswith("error:"))


class FingerprintTests(SynchronousTestCase):
    """The fingerprint differs when hops may differ, and only then."""

    def test_changes(self) -> None:
        """relayhost, entries and the order of tables change it."""
        first, second = "inline:{a.test=discard:}", "inline:{a.test=hold:}"
        prints = {
            hops(**values).fingerprint
            for values in (
                {},
                {"relayhost": "[r.test]"},
                {"relayhost": "[r.test]:26"},
                {"transport_maps": first},
                {"transport_maps": second},
                {"transport_maps": f"{first} {second}"},
                {"transport_maps": f"{second} {first}"},
                {"transport_maps": "static:discard:"},
            )
        }
        self.assertEqual(len(prints), 8)

    def test_stays(self) -> None:
        """Other parameters, and the order of entries, do not."""
        self.assertEqual(hops().fingerprint, hops(smtp_tls_security_level="none").fingerprint)
        self.assertEqual(
            hops(transport_maps="inline:{a.test=discard:, b.test=hold:}").fingerprint,
            hops(transport_maps="inline:{b.test=hold:, a.test=discard:}").fingerprint,
        )
