"""
Tests of C{smtpreuse.config.kinds}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config import kinds
from smtpreuse.config.kinds import Kind
from smtpreuse.config.tables import Tables
from smtpreuse.errors import BadValue
from smtpreuse.model.nexthop import Endpoint, Nexthop


class KindTests(SynchronousTestCase):
    """
    Each kind turns the texts it takes into values, and refuses every other text with a reason.
    """

    def assertValues(self, kind: Kind, values: dict[str, object]) -> None:
        """Every text gives its value, of the same type."""
        for text, value in values.items():
            found = kind.parse(text, "/etc/smtpreuse")
            self.assertEqual((found, type(found)), (value, type(value)), text)

    def assertRefused(self, kind: Kind, what: str, *texts: str) -> None:
        """Every text is refused with this reason, and named."""
        for text in texts:
            with self.assertRaises(BadValue, msg=text) as caught:
                kind.parse(text, "/")
            self.assertEqual(caught.exception.problems, (f"{what}: {text}",))

    def test_yesOrNo(self) -> None:
        """
        As in Postfix only these two words, in any case.
        """
        self.assertValues(kinds.YES_NO, {"yes": True, "NO": False, "Yes": True})
        self.assertRefused(kinds.YES_NO, "neither yes nor no", "true", "1", "", "y")

    def test_number(self) -> None:
        """
        Whole numbers within the bounds, both included.
        """
        kind = kinds.number(1, 20)
        self.assertValues(kind, {"1": 1, "20": 20, "007": 7})
        self.assertRefused(kind, "out of bounds", "0", "21")
        self.assertRefused(kind, "not a whole number", "", "-1", "1.5", "1k", "٣", "12345678901")
        self.assertEqual(kind.allowed, "1 to 20")
        self.assertEqual(kinds.number(0).allowed, "0 or more")
        self.assertValues(kinds.number(0), {"2147483647": 2**31 - 1})
        self.assertRefused(kinds.number(0), "out of bounds", "2147483648")

    def test_size(self) -> None:
        """
        Octets, with powers of 1,024.
        """
        self.assertValues(kinds.size(), {"0": 0, "10240000": 10240000, "1K": 1024, "16M": 16 * 2**20, "2g": 2**31})
        self.assertRefused(kinds.size(), "not a size", "", "M", "1T", "1.5M", "-1", "1 M")
        self.assertRefused(kinds.size(), "out of bounds", "999999999999G", "8589934592G")
        self.assertValues(kinds.size(), {"8589934591G": 2**63 - 2**30})
        self.assertRefused(kinds.size(10), "out of bounds", "9")
        self.assertValues(kinds.size(10), {"10": 10})

    def test_duration(self) -> None:
        """
        Seconds, from numbers with a unit; without one the parameter's unit counts.
        """
        self.assertValues(
            kinds.duration(), {"300": 300.0, "30s": 30.0, "0.5s": 0.5, "2m": 120.0, "1h": 3600.0, "5D": 432000.0}
        )
        self.assertValues(kinds.duration("d", zero=True), {"5": 432000.0, "1w": 604800.0, "0": 0.0, "7s": 7.0})
        self.assertRefused(kinds.duration(), "not a duration", "", "s", "-1s", "1 s", "1y", "1h30m", ".5s", "1e3")

    def test_durationBounds(self) -> None:
        """
        Zero only where it means something, and nothing that no timer could hold.
        """
        self.assertRefused(kinds.duration(), "out of bounds", "0", "0.0s", "3651d")
        self.assertValues(kinds.duration(), {"3650d": 3650 * 86400.0, "0.000001s": 0.000001})
        self.assertEqual(kinds.duration().allowed, "above 0 to 3650d; units s, m, h, d, w")
        self.assertEqual(kinds.duration(zero=True).allowed, "0 to 3650d; units s, m, h, d, w")

    def test_choice(self) -> None:
        """
        One word of several; one that is for later is told apart from one that is none.
        """
        kind = kinds.choice("may", "encrypt", later=("dane",))
        self.assertValues(kind, {"may": "may", "encrypt": "encrypt"})
        self.assertRefused(kind, "does not work yet", "dane")
        self.assertRefused(kind, "not one of its values", "", "MAY", "may,encrypt")
        self.assertEqual(kind.allowed, "may, encrypt")

    def test_emptyChoice(self) -> None:
        """
        Nothing may stand for one of the words.
        """
        kind = kinds.choice("none", "may", empty="none")
        self.assertValues(kind, {"": "none", "none": "none", "may": "may"})
        self.assertEqual(kind.allowed, "none, may; empty for none")

    def test_choices(self) -> None:
        """
        Words of several, in the order given, each once.
        """
        kind = kinds.choices("ipv4", "ipv6", every="all")
        self.assertValues(kind, {"all": ("ipv4", "ipv6"), "ipv6, ipv4": ("ipv6", "ipv4"), "ipv4 ipv4": ("ipv4",)})
        self.assertRefused(kind, "not one of its values", "ipv5")
        self.assertRefused(kind, "empty", "")
        self.assertRefused(kinds.choices("dns"), "not one of its values", "all")
        self.assertEqual(kind.allowed, "all, or a list of ipv4, ipv6")
        self.assertEqual(kinds.choices("dns").allowed, "a list of dns")
        with self.assertRaises(BadValue) as caught:
            kind.parse("ipv5,ipv4,all", "/")
        self.assertEqual(len(caught.exception.problems), 2)

    def test_keywords(self) -> None:
        """
        EHLO keywords become upper case, as capabilities have them.
        """
        self.assertValues(kinds.KEYWORDS, {"": (), "pipelining, Size": ("PIPELINING", "SIZE")})

    def test_domain(self) -> None:
        """
        Names of hosts and domains become lower case.
        """
        self.assertValues(kinds.DOMAIN, {"Mail.Example.COM": "mail.example.com", "localhost": "localhost"})
        self.assertRefused(
            kinds.DOMAIN,
            "not a host or domain name",
            "",
            "a b",
            "-a",
            "a-",
            "a..b",
            ".a",
            "a.",
            "a" * 64,
            "ä.example",
            ".".join(["a" * 60] * 5),
        )

    def test_greetingName(self) -> None:
        """
        EHLO gives a name, or an address in brackets.
        """
        self.assertValues(
            kinds.GREETING_NAME,
            {"Mail.example.com": "Mail.example.com", "[192.0.2.1]": "[192.0.2.1]", "[IPv6:::1]": "[IPv6:::1]"},
        )
        self.assertRefused(
            kinds.GREETING_NAME, "neither a host name nor an [address]", "", "[a]", "[192.0.2.1", "[192.0.2.1x", "a b"
        )

    def test_destinations(self) -> None:
        """
        Destinations are domains, hosts and addresses, as nexthops name them without brackets and ports.
        """
        self.assertValues(
            kinds.DESTINATIONS,
            {"": (), "Example.com, 192.0.2.1 2001:DB8::1": ("example.com", "192.0.2.1", "2001:db8::1")},
        )
        self.assertRefused(
            kinds.DESTINATIONS,
            "not a domain, host name or address",
            "[a.example]",
            "a.example:25",
            "/etc/file",
            "hash:x",
        )

    def test_path(self) -> None:
        """
        File names are made whole.
        """
        self.assertValues(kinds.PATH, {"/a/./b": "/a/b", "../spool": "/etc/spool", "a b": "/etc/smtpreuse/a b"})
        for text in ("", "a\0b"):
            with self.assertRaises(BadValue) as caught:
                kinds.PATH.parse(text, "/")
            self.assertEqual(caught.exception.problems, (f"not a file name: {text!r}",))
        self.assertValues(kinds.PATH_OR_EMPTY, {"": "", "log": "/etc/smtpreuse/log"})
        self.assertTrue(kinds.PATH.files and kinds.PATH_OR_EMPTY.files)

    def test_sourceAddress(self) -> None:
        """
        Our own address must be one of its family.
        """
        self.assertValues(kinds.source_address(4), {"": "", "192.0.2.1": "192.0.2.1"})
        self.assertValues(kinds.source_address(6), {"2001:DB8::1": "2001:db8::1", "[::1]": "::1"})
        self.assertRefused(kinds.source_address(4), "not an IPv4 address", "::1", "a.example", "192.0.2")
        self.assertRefused(kinds.source_address(6), "not an IPv6 address", "192.0.2.1", "[]")

    def test_servers(self) -> None:
        """
        Name servers are addresses, with a port where it is not 53.
        """
        self.assertValues(
            kinds.SERVERS,
            {
                "": (),
                "192.0.2.1, 192.0.2.2:5353": (Endpoint("192.0.2.1", 53), Endpoint("192.0.2.2", 5353)),
                "2001:DB8::1 [::1]:54": (Endpoint("2001:db8::1", 53), Endpoint("::1", 54)),
                "[192.0.2.3]:1": (Endpoint("192.0.2.3", 1),),
            },
        )
        self.assertRefused(
            kinds.SERVERS,
            "not the address of a name server",
            "a.example",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "192.0.2.1:x",
            "[::1",
            "[::1]:",
            "[192.0.2.1x:53",
            "a.example:53",
            "::1:99999",
        )

    def test_nexthop(self) -> None:
        """
        A nexthop, or none.
        """
        self.assertValues(
            kinds.NEXTHOP,
            {"": None, "[Mail.example.com]:587": Nexthop(host="mail.example.com", port=587, literal=True)},
        )
        self.assertRaises(BadValue, kinds.NEXTHOP.parse, "[x", "/")

    def test_nexthops(self) -> None:
        """
        Several, all of which are looked at.
        """
        self.assertValues(
            kinds.NEXTHOPS,
            {"": (), "a.example [b.example]": (Nexthop(host="a.example"), Nexthop(host="b.example", literal=True))},
        )
        with self.assertRaises(BadValue) as caught:
            kinds.NEXTHOPS.parse("[x, a.example, b:0", "/")
        self.assertEqual(len(caught.exception.problems), 2)

    def test_tables(self) -> None:
        """
        Errors of tables are problems of the parameter.
        """
        self.assertValues(kinds.TABLES, {"": Tables()})
        with self.assertRaises(BadValue) as caught:
            kinds.TABLES.parse("hash:x, inline:{}", "/")
        self.assertEqual(len(caught.exception.problems), 2)

    def test_listen(self) -> None:
        """
        Endpoints are divided by white space only: Twisted's may hold commas.
        """
        self.assertValues(
            kinds.LISTEN,
            {"tcp:25  unix:/run/a,b:mode=660\n systemd:name=x": ("tcp:25", "unix:/run/a,b:mode=660", "systemd:name=x")},
        )
        self.assertRefused(kinds.LISTEN, "not an endpoint", "", "2525", ":25", "tcp:", "127.0.0.1:25")

    @given(st.text(max_size=12))
    def test_refusedInWords(self, text: str) -> None:
        """
        No kind fails on any text but with a reason.
        """
        for kind in (
            kinds.YES_NO,
            kinds.number(0),
            kinds.size(),
            kinds.duration(),
            kinds.choices("a"),
            kinds.DOMAIN,
            kinds.SERVERS,
            kinds.GREETING_NAME,
            kinds.DESTINATIONS,
            kinds.PATH,
            kinds.source_address(4),
            kinds.source_address(6),
            kinds.NEXTHOP,
            kinds.NEXTHOPS,
            kinds.NETWORKS,
            kinds.LISTEN,
            kinds.KEYWORDS,
        ):
            try:
                kind.parse(text, "/")
            except BadValue as error:
                self.assertTrue(all(error.problems) and error.problems)
