"""
Tests of L{smtpreuse.tls.policy}.
"""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.load import settings_of
from smtpreuse.config.tables import Table, Tables
from smtpreuse.errors import PolicyError
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.tlsfacts import TLSSettings
from smtpreuse.tls.context import client_context
from smtpreuse.tls.policy import Policies, keys


class _Told(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        self.log = Logger(observer=self.events.append)

    def policies(self, table: str = "", **values: str) -> Policies:
        """With this inline table."""
        return Policies(settings_of(smtp_tls_policy_maps=f"inline:{{{table}}}" if table else "", **values), self.log)

    def told(self, nexthop: str, table: str = "", **values: str) -> Policy:
        """The policy of a nexthop."""
        return self.policies(table, **values).policy(Nexthop.parse(nexthop))

    def entry(self, text: str, **values: str) -> Policy:
        """The policy an entry gives."""
        return self.told("example.com", f"{{example.com={text}}}", **values)

    def refused(self, text: str) -> str:
        """The text of the error that an entry gives; it is a problem of the configuration as well."""
        policies = self.policies(f"{{example.com={text}}}")
        with self.assertRaises(PolicyError) as caught:
            policies.policy(Nexthop.parse("example.com"))
        self.assertEqual(caught.exception.status, "4.7.5")
        self.assertIn("client TLS configuration problem", caught.exception.text)
        (problem,) = policies.problems()
        self.assertTrue(problem.startswith("command line: smtp_tls_policy_maps: "))
        self.assertIn("example.com", problem)
        return caught.exception.text


class GlobalTests(_Told):
    """Where the table says nothing, the parameters decide."""

    def test_levels(self) -> None:
        """Each level that works."""
        for name, level in (("none", Level.NONE), ("may", Level.MAY), ("encrypt", Level.ENCRYPT)):
            self.assertIs(self.told("example.com", smtp_tls_security_level=name).level, level)

    def test_equal_settings(self) -> None:
        """may and encrypt shake hands alike, so that a session of one may serve the other."""
        self.assertEqual(
            self.told("example.com", smtp_tls_security_level="may").settings,
            self.told("example.com", smtp_tls_security_level="encrypt").settings,
        )
        self.assertEqual(self.entry("may").settings, self.entry("encrypt").settings)
        self.assertEqual(self.entry("may").settings, TLSSettings())

    def test_reuse(self) -> None:
        """smtp_tls_connection_reuse is the default of the attribute."""
        self.assertTrue(self.told("example.com").connection_reuse)
        self.assertFalse(self.told("example.com", smtp_tls_connection_reuse="no").connection_reuse)
        self.assertFalse(self.entry("may", smtp_tls_connection_reuse="no").connection_reuse)
        self.assertTrue(self.entry("may connection_reuse=yes", smtp_tls_connection_reuse="no").connection_reuse)
        self.assertFalse(self.entry("may connection_reuse=NO").connection_reuse)


class LookUpTests(_Told):
    """The table is asked for the nexthop as it is written, and for parents of a bare domain (spec 4.2)."""

    def level(self, nexthop: str, *names: str) -> str:
        """The level, where each of these keys has C{encrypt}, and others C{may}."""
        table = ", ".join(f"{name}=encrypt" for name in names)
        return self.told(nexthop, table).level.name

    def test_verbatim(self) -> None:
        """Brackets and ports are part of the key."""
        self.assertEqual(self.level("example.com", "Example.COM"), "ENCRYPT")
        self.assertEqual(self.level("[example.com]", "[example.com]"), "ENCRYPT")
        self.assertEqual(self.level("[example.com]:2525", "[example.com]:2525"), "ENCRYPT")
        self.assertEqual(self.level("[example.com]", "example.com", "[example.com]:26", ".com"), "MAY")
        self.assertEqual(self.level("example.com:2525", "example.com", ".com"), "MAY")
        self.assertEqual(self.level("example.com", "[example.com]"), "MAY")

    def test_parents(self) -> None:
        """Parents have a dot before them, and only bare domains have them."""
        self.assertEqual(self.level("a.b.example.com", ".example.com"), "ENCRYPT")
        self.assertEqual(self.level("a.b.example.com", "example.com", "b.example.com"), "MAY")
        self.assertEqual(self.level("example.com", ".example.com"), "MAY")
        self.assertEqual(self.level("[a.example.com]", ".example.com"), "MAY")

    def test_nearest(self) -> None:
        """The nearest entry counts."""
        table = "a.example.com=none, .example.com=encrypt, .com=may"
        self.assertIs(self.told("a.example.com", table).level, Level.NONE)
        self.assertIs(self.told("b.example.com", table).level, Level.ENCRYPT)
        self.assertIs(self.told("other.com", table).level, Level.MAY)

    def test_spellings(self) -> None:
        """A nexthop may be written in any way that the configuration takes it in; the entry for it as well."""
        for nexthop, *names in (
            ("example.com", "Example.com.", "example.com:25", "example.com:smtp", "example.com:0025"),
            ("[example.com]", "[example.com.]", "[example.com]:25", "[EXAMPLE.com]:smtp"),
            ("[mx.example.com]:587", "[mx.example.com]:submission", "[mx.example.com]:0587"),
            ("[2001:db8::1]", "[2001:db8:0::1]", "[ipv6:2001:DB8::1]", "[IPv6:2001:db8:0:0::1]:25"),
            ("[::ffff:192.0.2.1]", "[::ffff:c000:201]"),
        ):
            for name in (nexthop, *names):
                self.assertEqual(self.level(nexthop, name), "ENCRYPT", name)
                self.assertEqual(self.level(name, nexthop), "ENCRYPT", name)
                self.assertEqual(self.policies(f"{name}=encrypt").problems(), [])

    def test_no_nexthop(self) -> None:
        """A key that can never be looked up is told, with its place, instead of leaving its mail at a lower level."""
        for key in (
            "[mx.example.com", "mx.example.com/30", "me@example.com", "*", "2001:db8::1", "[mx.example.com]:smtps",
            ".example.com.", ".example.com:25", ".[mx.example.com]", ".", "example.com:0", "smtp:[mx.example.com]",
        ):  # fmt: skip
            (problem,) = self.policies(f"{key}=encrypt, other.test=may").problems()
            self.assertIn(f"smtp_tls_policy_maps: no nexthop: {key} (allowed: ", problem)
            self.assertTrue(problem.endswith(f" for {key}"))

    def test_place(self) -> None:
        """In a file the line is told."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write("# levels\nexample.com encrypt\n\n[mx.example.com encrypt\nb.test dane\n")
        problems = Policies(settings_of(smtp_tls_policy_maps=f"texthash:{path}"), self.log).problems()
        self.assertEqual(len(problems), 2)
        self.assertIn(f"{path}:4 for [mx.example.com", problems[0])
        self.assertIn(f"{path}:5 for b.test", problems[1])

    def test_two_spellings(self) -> None:
        """Two entries for one nexthop in one table are told; in two tables the first one counts."""
        (problem,) = self.policies("example.com=encrypt, example.com:25=may").problems()
        self.assertIn("a second entry for the nexthop example.com, in", problem)
        tables = "inline:{example.com.=encrypt}, inline:{example.com=none, .example.com=none}, static:may"
        policies = Policies(settings_of(smtp_tls_policy_maps=tables), self.log)
        self.assertEqual(policies.problems(), [])
        levels = [policies.policy(Nexthop.parse(name)).level for name in ("example.com", "a.test", "b.example.com")]
        self.assertEqual(levels, [Level.ENCRYPT, Level.MAY, Level.MAY])

    def test_all_keys(self) -> None:
        """The order as a whole."""
        self.assertEqual(list(keys(Nexthop.parse("a.example.com"))), ["a.example.com", ".example.com", ".com"])
        self.assertEqual(list(keys(Nexthop.parse("[192.0.2.1]:26"))), ["[192.0.2.1]:26"])

    def test_only_one_bad(self) -> None:
        """A bad entry spoils its own nexthop alone."""
        self.assertIs(self.told("other.test", "example.com=dane").level, Level.MAY)


class EntryTests(_Told):
    """An entry is a level and attributes; what is not understood is never overlooked."""

    def test_attributes(self) -> None:
        """Those that work shape the handshake."""
        policy = self.entry("Encrypt ciphers=HIGH protocols=>=TLSv1.2 servername=Mail.Example.COM")
        self.assertEqual(
            policy.settings, TLSSettings(protocols=">=TLSv1.2", ciphers="high", servername="mail.example.com")
        )

    def test_braces(self) -> None:
        """In braces a value may hold white space, and an attribute spaces around its sign."""
        policy = self.entry("may, { protocols = >=TLSv1.1 <=TLSv1.2 }, { Ciphers = medium }")
        self.assertEqual(policy.settings.protocols, ">=TLSv1.1 <=TLSv1.2")

    def test_contexts(self) -> None:
        """Whatever passes here can be made a context of."""
        for text in ("may", "may ciphers=high", "may protocols=!TLSv1:!TLSv1.1", "encrypt protocols=TLSv1.3"):
            self.assertIsNotNone(client_context(self.entry(text).settings))

    def test_levels_refused(self) -> None:
        """Levels that do not work yet are refused by name, and unknown ones."""
        for level in ("dane", "dane-only", "half-dane", "fingerprint", "verify", "secure"):
            self.assertIn(f"does not work yet: {level}", self.refused(f"{level} match=example.com"))
        self.assertIn("not a level: sometimes", self.refused("sometimes"))

    def test_empty(self) -> None:
        """An entry of separators alone has no level."""
        self.assertIn("not a level", self.refused("{ , }"))

    def test_attributes_refused(self) -> None:
        """Unknown ones, those that do not work yet, twice the same, and values that are none."""
        for attributes, text in (
            ("match=example.com", "not an attribute that works: match"),
            ("exclude=RC4", "not an attribute that works: exclude"),
            ("enable_rpk=yes", "not an attribute that works: enable_rpk"),
            ("policy_type=sts", "not an attribute that works: policy_type"),
            ("ciphers=high ciphers=high", "twice: ciphers"),
            ("connection_reuse=yes tls_connection_reuse=yes", "twice: connection_reuse"),
            ("ciphers", "not name=value: ciphers"),
            ("ciphers=", "not name=value: ciphers="),
            ("=high", "not name=value: =high"),
            ("ciphers=null", "grade"),
            ("protocols=TLSv9", "TLSv9"),
            ("protocols=!SSLv2:<=SSLv2", "leave none"),
            ("protocols=SSLv3", "leave none that can be spoken"),
            ("protocols=<=SSLv3", "leave none that can be spoken"),
            ("connection_reuse=maybe", "neither yes nor no: maybe"),
            ("servername=a..b", "not a host name"),
            ("servername=[192.0.2.1]", "not a host name"),
            ("servername=a.test:25", "not a host name"),
        ):
            self.assertIn(text, self.refused(f"may {attributes}"))

    def test_none(self) -> None:
        """At level none attributes are overlooked, with a warning."""
        policy = self.entry("none ciphers=high connection_reuse=no")
        self.assertEqual(policy, Policy(level=Level.NONE))
        self.assertEqual([event["names"] for event in self.events], ["ciphers, connection_reuse"])

    def test_old_name(self) -> None:
        """tls_connection_reuse is understood, with one notice."""
        policies = self.policies("{a.test=may tls_connection_reuse=no}, {b.test=encrypt tls_connection_reuse=no}")
        for name in ("a.test", "b.test", "a.test"):
            self.assertFalse(policies.policy(Nexthop.parse(name)).connection_reuse)
        self.assertEqual(len(self.events), 1)

    def test_remembered(self) -> None:
        """An entry is read once."""
        policies = self.policies("example.com=encrypt")
        nexthop = Nexthop.parse("example.com")
        self.assertIs(policies.policy(nexthop), policies.policy(nexthop))

    def test_problems(self) -> None:
        """All problems are told at once; without any there are none."""
        self.assertEqual(self.policies("a.test=may").problems(), [])
        self.assertEqual(self.policies().problems(), [])
        self.assertEqual(len(self.policies("a.test=dane, b.test=may, c.test=secure").problems()), 2)
        settings = settings_of(smtp_tls_policy_maps="static:dane")
        self.assertIn("every key", Policies(settings, self.log).problems()[0])

    @given(st.text(alphabet="mayencrypt ={},:none>TLSv1._", max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any entry gives a policy that a context can be made of, or a policy error."""
        table = Tables((Table(name="test", entries={"example.com": text}),))
        policies = Policies(evolve(settings_of(), smtp_tls_policy_maps=table), Logger(observer=lambda event: None))
        try:
            policy = policies.policy(Nexthop.parse("example.com"))
        except PolicyError:
            self.assertEqual(len(policies.problems()), 1)
        else:
            self.assertEqual(policies.problems(), [])
            self.assertIsInstance(policy, Policy)
