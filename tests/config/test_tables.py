"""
Tests of C{smtpreuse.config.tables}.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.tables import Networks, Tables, open_table, split_braced
from smtpreuse.errors import BadValue, TableError


class SplitTests(SynchronousTestCase):
    """
    Lists are divided outside of braces only.
    """

    def test_separators(self) -> None:
        """
        Commas and white space in any number divide.
        """
        self.assertEqual(list(split_braced(" a,b  c ,\n d,")), ["a", "b", "c", "d"])
        self.assertEqual(list(split_braced(" , ")), [])

    def test_braces(self) -> None:
        """
        What stands in braces stays whole.
        """
        self.assertEqual(list(split_braced("a:{ b, {c d} },e{f g}h")), ["a:{ b, {c d} }", "e{f g}h"])

    def test_unbalanced(self) -> None:
        """
        A brace without a partner is an error, whichever it is.
        """
        for text in ("a{b", "a}b", "}{"):
            with self.assertRaises(BadValue) as caught:
                list(split_braced(text))
            self.assertEqual(str(caught.exception), f"a brace has no partner: {text}")

    @given(st.lists(st.from_regex(r"[a-z:]{1,4}(\{[a-z ,]{0,5}\})?", fullmatch=True), max_size=5))
    def test_joined(self, words: list[str]) -> None:
        """
        Words that are joined come apart again.
        """
        self.assertEqual(list(split_braced(", ".join(words))), words)


class TableTests(SynchronousTestCase):
    """
    Each type of table is read as Postfix reads it; what cannot be read is told.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def written(self, text: str | bytes) -> str:
        """A file with this text; its path."""
        path = self.directory / "table"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def problems(self, name: str) -> str:
        """What the look at a table complains of."""
        with self.assertRaises(TableError) as caught:
            open_table(name, str(self.directory))
        return str(caught.exception)

    def test_static(self) -> None:
        """
        C{static:} has one answer to every key.
        """
        self.assertEqual(open_table("static:smtp:[a.example]", "").get("anything"), "smtp:[a.example]")
        self.assertEqual(open_table("static:{ two words }", "").get("x"), "two words")
        self.assertEqual(open_table("static:x}", "").get("x"), "x}")

    def test_inline(self) -> None:
        """
        C{inline:} has its entries in the configuration; those with spaces stand in braces.
        """
        table = open_table("inline:{ A.example=smtp:[b.example], {c.example = error:no such host} }", "")
        self.assertEqual(table.get("a.EXAMPLE"), "smtp:[b.example]")
        self.assertEqual(table.get("c.example"), "error:no such host")
        self.assertIsNone(table.get("d.example"))
        self.assertEqual(open_table("inline:{ { a = {b} c } d={e} }", "").entries, {"a": "{b} c", "d": "{e}"})

    def test_inlineErrors(self) -> None:
        """
        An C{inline:} table that cannot be meant so is refused.
        """
        for name, what in {
            "inline:a=b": "entries of an inline table stand in braces, {key=value, ...}: a=b",
            "inline:{a=b": "a '{' that is not closed: {a=b",
            "static:{a": "a '{' that is not closed: {a",
            "static:{a}b": "something behind the closing brace: {a}b",
            "inline:{}": "an inline table without an entry: {}",
            "inline:{a}": "not key=value in an inline table: a",
            "inline:{=a}": "not key=value in an inline table: =a",
            "inline:{a=}": "not key=value in an inline table: a=",
            "inline:{{two words=1}}": "not key=value in an inline table: {two words=1}",
            "inline:{{a b =1}}": "not key=value in an inline table: {a b =1}",
            "inline:{{a=1}b=2}}": "something behind the closing brace: {{a=1}b=2}}",
            "inline:{a=1}{b=2}": "something behind the closing brace: {a=1}{b=2}",
            "inline:{{a=1}{b=2}}": "something behind the closing brace: {a=1}{b=2}",
            "inline:{{a=1}b=2}": "something behind the closing brace: {a=1}b=2",
            "inline:{a=1, A=2}": "the same key twice in an inline table: A",
        }.items():
            self.assertEqual(self.problems(name), what)

    def test_texthash(self) -> None:
        """
        C{texthash:} reads lines of key and value, with the comments and continuations of C{main.cf}.
        """
        self.written("# no\nA.example  smtp:[b.example]\n\nc.example\terror:no\n   such host  \n")
        table = open_table("texthash:table", str(self.directory))
        self.assertEqual(table.name, f"texthash:{self.directory / 'table'}")
        self.assertEqual(table.get("a.example"), "smtp:[b.example]")
        self.assertEqual(table.get("C.Example"), "error:no   such host")
        self.assertIsNone(table.get("such"))
        self.assertEqual(
            [place for place, _, _ in Tables((table, open_table("inline:{a=b}", ""))).items()],
            [f"{table.name}:2", f"{table.name}:4", "inline:{a=b}"],
        )

    def test_texthashErrors(self) -> None:
        """
        All lines that are wrong are told, each with its number.
        """
        path = self.written(" a b\nc\nd e\nD f\n")
        self.assertEqual(
            self.problems(f"texthash:{path}").splitlines(),
            [
                f"{path}:1: a line that begins with white space continues nothing",
                f"{path}:2: no value behind the key: c",
                f"{path}:4: the same key a second time: D",
            ],
        )

    def test_unreadable(self) -> None:
        """
        A missing file and one that is not UTF-8 are told by name.
        """
        self.assertEqual(
            self.problems("texthash:none"), f"cannot be read (No such file or directory): {self.directory}/none"
        )
        path = self.written(b"a \xff\n")
        self.assertEqual(self.problems(f"texthash:{path}"), f"is not UTF-8: {path}")

    def test_otherTypes(self) -> None:
        """
        Types that do not work, and names without a type or a rest, are refused.
        """
        for name in ("hash:/etc/transport", "transport", "static:", ":x", "/etc/transport"):
            self.assertEqual(
                self.problems(name), f"not a table of a type that works (texthash, inline, static): {name}"
            )


class TablesTests(SynchronousTestCase):
    """
    Several tables are asked in their order.
    """

    def test_firstAnswer(self) -> None:
        """
        The first table that has the key decides.
        """
        tables = Tables.parse("inline:{a=1}, inline:{a=2,b=3} static:4", "/")
        self.assertEqual([tables.get(key) for key in "aBc"], ["1", "3", "4"])

    def test_none(self) -> None:
        """
        Without tables, and where none has the key, there is no answer.
        """
        self.assertIsNone(Tables.parse("", "/").get("a"))
        self.assertIsNone(Tables.parse("inline:{a=1}", "/").get("b"))

    def test_truth(self) -> None:
        """
        It counts as true when there is a table at all.
        """
        self.assertFalse(Tables.parse(" ", "/"))
        self.assertTrue(Tables.parse("static:x", "/"))

    def test_items(self) -> None:
        """
        All entries can be looked at, with the table they stand in.
        """
        tables = Tables.parse("inline:{a=1,b=2} static:4", "/")
        self.assertEqual(
            list(tables.items()),
            [("inline:{a=1,b=2}", "a", "1"), ("inline:{a=1,b=2}", "b", "2"), ("static:4", "", "4")],
        )

    def test_allErrors(self) -> None:
        """
        Every table that is wrong is told.
        """
        with self.assertRaises(TableError) as caught:
            Tables.parse("hash:a static:x inline:{}", "/")
        self.assertEqual(len(str(caught.exception).splitlines()), 2)
        with self.assertRaises(TableError) as caught:
            Tables.parse("inline:{", "/")
        self.assertEqual(str(caught.exception), "a brace has no partner: inline:{")

    def test_relative(self) -> None:
        """
        File names are relative to the directory that is given.
        """
        directory = self.mktemp()
        os.makedirs(directory)
        Path(directory, "t").write_text("a 1\n")
        self.assertEqual(Tables.parse("texthash:../" + os.path.basename(directory) + "/t", directory).get("a"), "1")


class NetworksTests(SynchronousTestCase):
    """
    A list of networks says whether an address is in it.
    """

    def test_forms(self) -> None:
        """
        Addresses and networks, IPv6 with and without brackets.
        """
        networks = Networks.parse("127.0.0.0/8, 192.0.2.7 [::1]/128 [2001:db8::]/32 2001:db9::/32 [fe80::1]")
        for address in ("127.9.9.9", "192.0.2.7", "::1", "2001:db8:1::5", "2001:db9::1", "fe80::1"):
            self.assertTrue(networks.contains(address), address)
        for address in ("128.0.0.1", "192.0.2.8", "::2", "2001:dba::1"):
            self.assertFalse(networks.contains(address), address)

    def test_exclusion(self) -> None:
        """
        The first pattern that matches decides, and C{!} turns one around.
        """
        networks = Networks.parse("!192.0.2.5, 192.0.2.0/24, !192.0.2.6, !!127.0.0.1")
        self.assertFalse(networks.contains("192.0.2.5"))
        self.assertTrue(networks.contains("192.0.2.6"))
        self.assertTrue(networks.contains("127.0.0.1"))

    def test_mapped(self) -> None:
        """
        An IPv4 address that came over an IPv6 socket counts as IPv4.
        """
        self.assertTrue(Networks.parse("127.0.0.0/8").contains("::ffff:127.0.0.1"))
        self.assertFalse(Networks.parse("::/0").contains("::ffff:127.0.0.1"))

    def test_scope(self) -> None:
        """
        The interface that a link-local address names is not looked at.
        """
        self.assertTrue(Networks.parse("fe80::/10").contains("fe80::1%eth0"))

    def test_noAddress(self) -> None:
        """
        What is no address is in no list; an empty list has none.
        """
        self.assertFalse(Networks.parse("0.0.0.0/0 ::/0").contains("localhost"))
        self.assertFalse(Networks.parse("").contains("127.0.0.1"))

    def test_errors(self) -> None:
        """
        All that are wrong are told: names, host bits behind the network, brackets in wrong places.
        """
        with self.assertRaises(BadValue) as caught:
            Networks.parse("example.com 10.0.0.1/8 [127.0.0.1] [::1/128] [::1]x [::1 127.0.0.1")
        wrong = [problem.rsplit(": ", 1)[1] for problem in caught.exception.problems]
        self.assertEqual(wrong, ["example.com", "10.0.0.1/8", "[127.0.0.1]", "[::1/128]", "[::1]x", "[::1"])
        self.assertIn("host bits set", caught.exception.problems[1])

    @given(st.ip_addresses(), st.integers(0, 32))
    def test_agreesWithNetwork(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int) -> None:
        """
        Every address is in each network around it, and in none beside it.
        """
        network = ipaddress.ip_network(f"{address}/{length}", strict=False)
        mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
        self.assertEqual(Networks.parse(str(network)).contains(str(address)), not mapped)
        self.assertFalse(Networks.parse(f"!{network}").contains(str(address)))
