"""
Tests of L{smtpreuse.model.nexthop}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import from_regex, integers, ip_addresses, sampled_from, text
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import AddressError
from smtpreuse.model.nexthop import Candidate, Endpoint, Nexthop, parsed_address
from smtpreuse.model.policy import Level, Policy

LABEL = r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z"


class ParseTests(SynchronousTestCase):
    """The four forms of a nexthop, and nothing else, are understood."""

    def test_domain(self) -> None:
        """A domain is asked for MX records, at port 25."""
        self.assertEqual(Nexthop.parse("example.com"), Nexthop(host="example.com", port=25, literal=False))

    def test_domain_port(self) -> None:
        """A domain may have a port."""
        self.assertEqual(Nexthop.parse("example.com:2525"), Nexthop(host="example.com", port=2525, literal=False))

    def test_host(self) -> None:
        """In brackets stands a host."""
        self.assertEqual(Nexthop.parse("[mx.example.com]"), Nexthop(host="mx.example.com", port=25, literal=True))

    def test_host_port(self) -> None:
        """A host may have a port."""
        self.assertEqual(Nexthop.parse("[mx.example.com]:587"), Nexthop(host="mx.example.com", port=587, literal=True))

    def test_addresses(self) -> None:
        """In brackets may stand an address, which is brought into its canonical form."""
        for written, host in (
            ("[192.0.2.1]", "192.0.2.1"),
            ("[2001:DB8:0::1]", "2001:db8::1"),
            ("[IPv6:2001:db8::1]", "2001:db8::1"),
            ("[ipv6:::1]", "::1"),
        ):
            self.assertEqual(Nexthop.parse(written), Nexthop(host=host, literal=True))
        self.assertEqual(Nexthop.parse("[2001:db8::1]:465"), Nexthop(host="2001:db8::1", port=465, literal=True))

    def test_one_spelling(self) -> None:
        """Case, a final dot and space around it make no difference."""
        for written in ("EXAMPLE.com", "example.com.", " example.com\t", "Example.Com:25", "example.com:smtp"):
            self.assertEqual(Nexthop.parse(written), Nexthop(host="example.com"), written)
        self.assertEqual(Nexthop.parse("[MX.example.com.]"), Nexthop(host="mx.example.com", literal=True))

    def test_services(self) -> None:
        """Two ports have names."""
        self.assertEqual(Nexthop.parse("[mx.example.com]:submission").port, 587)
        self.assertEqual(Nexthop.parse("mx.example.com:smtp").port, 25)

    def test_ports(self) -> None:
        """Ports go from 1 to 65535."""
        for port in (1, 65535):
            self.assertEqual(Nexthop.parse(f"example.com:{port}").port, port)
        for port in ("0", "65536", "-1", "+25", "x", "2 5", "\u0662\u0665", "9" * 5000, "http", "²"):
            with self.assertRaises(AddressError) as caught:
                Nexthop.parse(f"example.com:{port}")
            self.assertIn(f"has no such port: {port!r} (allowed: 1 to 65535, smtp, submission)", str(caught.exception))

    def test_no_port(self) -> None:
        """A colon announces a port."""
        for written in ("example.com:", "[mx.example.com]:"):
            with self.assertRaises(AddressError) as caught:
                Nexthop.parse(written)
            self.assertEqual(str(caught.exception), f"nexthop {written!r} names no port behind its colon")

    def test_brackets(self) -> None:
        """Brackets are closed, and nothing but a port follows."""
        for written in ("[mx.example.com", "[mx.example.com]25", "[mx.example.com] :25", "["):
            with self.assertRaises(AddressError) as caught:
                Nexthop.parse(written)
            self.assertEqual(str(caught.exception), f"nexthop {written!r} is not [host] or [host]:port")

    def test_no_literal(self) -> None:
        """What stands in brackets is a name or an address."""
        for written in ("[]", "[a b]", "[ipv6:]", "[a..b]", "[2001:db8::g]", "[-a]"):
            with self.assertRaises(AddressError) as caught:
                Nexthop.parse(written)
            self.assertEqual(str(caught.exception), f"nexthop {written!r} names neither a host nor an address")

    def test_no_domain(self) -> None:
        """What stands without brackets is a domain; an address there is told where it belongs."""
        for written in (
            "", ".", "a..b", ".a", "a.-b", "a-.b", "a@b", "a/b", "exämple.com", "2001:db8::1", f"{'a' * 64}.com",
            ".".join(["a" * 63] * 4), "a.com..", "mx.example.com]", "a\nb",
        ):  # fmt: skip
            with self.assertRaises(AddressError) as caught:
                Nexthop.parse(written)
            self.assertIn("is not a domain (an address goes in brackets)", str(caught.exception), written)

    def test_longest(self) -> None:
        """Labels have up to 63 octets, names up to 253, not counting a final dot; underscores occur."""
        name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
        self.assertEqual(Nexthop.parse(f"{name}.").host, name)
        self.assertRaises(AddressError, Nexthop.parse, f"{name}d")
        self.assertEqual(Nexthop.parse("_x.a_b.example.com").host, "_x.a_b.example.com")

    def test_long_nonsense(self) -> None:
        """
        A long name with a bad character at its end is refused like any other: this ends at all, where it took a time
        exponential in the length.
        """
        for written in (f"{'a' * 250}!", f"{'a' * 62}!", f"{'a.' * 120}!", f"{'-' * 250}"):
            self.assertRaises(AddressError, Nexthop.parse, written)

    @given(text())
    def test_anything(self, written: str) -> None:
        """Any text is a nexthop or an address error."""
        try:
            nexthop = Nexthop.parse(written)
        except AddressError:
            return
        self.assertEqual(Nexthop.parse(str(nexthop)), nexthop)

    @given(from_regex(LABEL), integers(1, 65535), sampled_from([False, True]))
    def test_names_come_back(self, label: str, port: int, literal: bool) -> None:
        """What is written of a nexthop is read as the same."""
        nexthop = Nexthop(host=f"{label}.example.com", port=port, literal=literal)
        self.assertEqual(Nexthop.parse(str(nexthop)), nexthop)

    @given(ip_addresses(), integers(1, 65535))
    def test_addresses_come_back(self, address: object, port: int) -> None:
        """So are addresses, of both families."""
        nexthop = Nexthop(host=str(address), port=port, literal=True)
        self.assertEqual(Nexthop.parse(str(nexthop)), nexthop)


class TextTests(SynchronousTestCase):
    """How they are written."""

    def test_nexthop(self) -> None:
        """Port 25 goes without saying."""
        self.assertEqual(str(Nexthop(host="example.com")), "example.com")
        self.assertEqual(str(Nexthop(host="example.com", port=26)), "example.com:26")
        self.assertEqual(str(Nexthop(host="::1", literal=True)), "[::1]")
        self.assertEqual(str(Nexthop(host="mx.example.com", port=587, literal=True)), "[mx.example.com]:587")

    def test_endpoint(self) -> None:
        """An endpoint always has brackets and port."""
        self.assertEqual(str(Endpoint("192.0.2.1", 25)), "[192.0.2.1]:25")
        self.assertEqual(str(Endpoint("2001:db8::1", 587)), "[2001:db8::1]:587")

    def test_ipv6(self) -> None:
        """The family shows in the address."""
        self.assertFalse(Endpoint("192.0.2.1", 25).ipv6)
        self.assertTrue(Endpoint("::1", 25).ipv6)

    def test_candidate(self) -> None:
        """The log names a candidate by host, address and port."""
        policy = Policy(level=Level.MAY)
        candidate = Candidate(endpoint=Endpoint("::1", 26), host="mx.example.com", preference=10, policy=policy)
        self.assertEqual(candidate.relay, "mx.example.com[::1]:26")


class AddressTests(SynchronousTestCase):
    """Addresses have one spelling."""

    def test_parsed(self) -> None:
        """The canonical form, or nothing."""
        self.assertEqual(parsed_address("2001:DB8:0:0::1"), "2001:db8::1")
        self.assertEqual(parsed_address("192.0.2.1"), "192.0.2.1")
        for written in ("192.0.2", "192.0.2.256", "mx.example.com", "", "192.0.2.01"):
            self.assertIsNone(parsed_address(written), written)
