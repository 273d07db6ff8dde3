"""
Tests of L{smtpreuse.routing.candidates}.
"""

from __future__ import annotations

import random
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.load import settings_of
from smtpreuse.errors import DNSError, NoSuchName, NoSuchRecords, RouteError
from smtpreuse.model.nexthop import Endpoint, Nexthop
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.records import MXRecord
from smtpreuse.routing.candidates import Candidates, Found
from smtpreuse.routing.ourselves import Ourselves
from tests.routing.fakes import FakeResolver

POLICY = Policy(level=Level.ENCRYPT)
SOFT = DNSError("no answer in time", temporary=True)


class _Found(SynchronousTestCase):
    def setUp(self) -> None:
        self.dns = FakeResolver()
        self.clock = Clock()
        self.listens = [Endpoint("0.0.0.0", 2525)]

    def find(self, nexthop: str, **values: str) -> Deferred[Found]:
        """Resolve, under these settings; 192.0.2.99 is an address of this host."""
        settings = settings_of(**values)
        ourselves = Ourselves(settings.myhostname, self.listens, lambda address: address == "192.0.2.99")
        candidates = Candidates(settings, self.dns, ourselves, random.Random(1), self.clock.seconds)
        return Deferred.fromCoroutine(candidates.find(Nexthop.parse(nexthop), POLICY))

    def found(self, nexthop: str, **values: str) -> Found:
        """The result."""
        return self.successResultOf(self.find(nexthop, **values))

    def addresses(self, nexthop: str, **values: str) -> list[str]:
        """The addresses of the candidates in their order."""
        return [candidate.endpoint.address for candidate in self.found(nexthop, **values).candidates]

    def refused(self, nexthop: str, **values: str) -> tuple[str, str]:
        """The status and the text of the error."""
        error = self.failureResultOf(self.find(nexthop, **values), RouteError).value
        return error.status, error.text


class MailHostTests(_Found):
    """A domain's MX hosts, the preferred ones first (RFC 5321 section 5.1)."""

    def test_preference(self) -> None:
        """The lower preference goes first, and what a candidate is made of is complete."""
        self.dns.domains["example.com"] = [(20, "b.test"), (10, "a.test")]
        self.dns.hosts = {"a.test": ["192.0.2.1"], "b.test": ["192.0.2.2"]}
        self.dns.expiries = {"b.test": 500.0}
        found = self.found("example.com:26")
        self.assertEqual(
            [(one.host, one.endpoint, one.preference, one.policy) for one in found.candidates],
            [("a.test", Endpoint("192.0.2.1", 26), 10, POLICY), ("b.test", Endpoint("192.0.2.2", 26), 20, POLICY)],
        )
        self.assertEqual(set(found.records), {MXRecord(10, "a.test"), MXRecord(20, "b.test")})
        self.assertEqual(found.good_until, 500.0)
        self.assertFalse(found.partial)

    def test_mx_expiry(self) -> None:
        """The MX records may be what expires first."""
        self.dns.domains["example.com"] = [(10, "a.test")]
        self.dns.hosts["a.test"] = ["192.0.2.1"]
        self.dns.expiries["example.com"] = 300.0
        self.assertEqual(self.found("example.com").good_until, 300.0)

    def test_shuffled(self) -> None:
        """Hosts of equal preference come in any order, those of others never."""
        self.dns.domains["example.com"] = [(1, f"h{n}.test") for n in range(4)] + [(2, "z.test")]
        self.dns.hosts = {f"h{n}.test": [f"192.0.2.{n}"] for n in range(4)} | {"z.test": ["192.0.2.9"]}
        candidates = Candidates(
            settings_of(), self.dns, Ourselves("x.test", [], lambda address: False), random.Random(7),
            self.clock.seconds,
        )  # fmt: skip
        orders = set()
        for _ in range(30):
            found = self.successResultOf(Deferred.fromCoroutine(candidates.find(Nexthop.parse("example.com"), POLICY)))
            self.assertEqual(found.candidates[-1].host, "z.test")
            orders.add(found.candidates)
        self.assertGreater(len(orders), 5)

    def test_no_mx(self) -> None:
        """Without MX records the domain is its own mail host, whether it is said to have none or not to be."""
        self.dns.hosts["example.com"] = ["192.0.2.1", "2001:db8::1"]
        for error in (NoSuchRecords("none"), NoSuchName("gone")):
            self.dns.domains["example.com"] = error
            found = self.found("example.com", smtp_address_preference="ipv6")
            self.assertEqual([one.endpoint.address for one in found.candidates], ["2001:db8::1", "192.0.2.1"])
            self.assertEqual(found.records, ())
            self.assertEqual(found.candidates[0].host, "example.com")

    def test_gone(self) -> None:
        """A domain that does not exist bounces with 5.4.4."""
        self.assertEqual(self.refused("example.com"), ("5.4.4", "example.com not found"))

    def test_mx_temporary(self) -> None:
        """MX records that cannot be had now defer, even where the domain has an address."""
        self.dns.domains["example.com"] = SOFT
        self.dns.hosts["example.com"] = ["192.0.2.1"]
        self.assertEqual(self.refused("example.com"), ("4.4.3", "no answer in time"))

    def test_null_mx(self) -> None:
        """A domain that accepts no mail bounces with 5.1.10, and no address is asked for (RFC 7505)."""
        self.dns.domains["example.com"] = [(0, "")]
        self.dns.hosts["example.com"] = ["192.0.2.1"]
        status, text = self.refused("example.com")
        self.assertEqual(status, "5.1.10")
        self.assertIn("556 5.1.10", text)
        self.assertEqual(self.dns.asked, ["MX example.com"])

    def test_odd_hosts(self) -> None:
        """A null MX beside others, and names that are none, are left out."""
        odd = [(5, name) for name in ("a b.test", "a.test:26", "[192.0.2.5]")]
        self.dns.domains["example.com"] = [(0, ""), *odd, (9, "a.test")]
        self.dns.hosts["a.test"] = ["192.0.2.1"]
        found = self.found("example.com")
        self.assertEqual(found.records, (MXRecord(9, "a.test"),))
        self.dns.domains["example.com"] = [(5, "a b.test")]
        self.assertEqual(self.refused("example.com")[0], "5.4.4")

    def test_address_as_host(self) -> None:
        """An address where a host's name should stand is used, if its protocol is, and the log has it."""
        self.dns.domains["example.com"] = [(1, "192.0.2.7"), (2, "2001:DB8:0::7"), (3, "fe80::1%eth0"), (4, "a.test")]
        self.dns.hosts["a.test"] = ["192.0.2.1"]
        found = self.found("example.com")
        self.assertEqual(
            [(one.host, one.endpoint.address, one.preference) for one in found.candidates],
            [("192.0.2.7", "192.0.2.7", 1), ("2001:db8::7", "2001:db8::7", 2), ("a.test", "192.0.2.1", 4)],
        )
        self.assertEqual(self.dns.asked, ["MX example.com", "A a.test", "AAAA a.test"])
        self.assertEqual(self.addresses("example.com", inet_protocols="ipv4"), ["192.0.2.7", "192.0.2.1"])
        self.assertNotIn("A 2001:db8::7", self.dns.asked)
        self.dns.domains["a.test"] = [(1, "2001:db8::7")]
        self.assertEqual(self.refused("a.test", inet_protocols="ipv4")[0], "5.4.4")
        events: list[LogEvent] = []
        with mock.patch.object(Candidates, "log", Logger(observer=events.append)):
            self.found("example.com")
        self.assertEqual([event["host"] for event in events], ["192.0.2.7", "2001:DB8:0::7"])

    def test_address_of_ours_as_host(self) -> None:
        """An address of ours there is a loop like any other."""
        self.dns.domains["example.com"] = [(1, "192.0.2.99")]
        self.assertEqual(self.refused("example.com:2525")[0], "5.4.6")

    def test_hosts_without_address(self) -> None:
        """Such hosts are skipped; a temporary error among them is noted."""
        self.dns.domains["example.com"] = [(1, "gone.test"), (2, "soft.test"), (3, "a.test")]
        self.dns.hosts = {"soft.test": SOFT, "a.test": ["192.0.2.1"]}
        found = self.found("example.com")
        self.assertEqual([one.host for one in found.candidates], ["a.test"])
        self.assertTrue(found.partial)
        self.dns.domains["example.com"] = [(1, "gone.test"), (3, "a.test")]
        self.assertFalse(self.found("example.com").partial)

    def test_no_host_at_all(self) -> None:
        """Without any address: deferred when one may yet be found, else bounced."""
        self.dns.domains["example.com"] = [(1, "gone.test"), (2, "soft.test"), (3, "gone.test")]
        self.dns.hosts = {"soft.test": SOFT}
        self.assertEqual(self.refused("example.com")[0], "4.4.3")
        self.dns.domains["example.com"] = [(1, "gone.test")]
        self.assertEqual(self.refused("example.com")[0], "5.4.4")

    def test_shared_address(self) -> None:
        """An address of two hosts is tried once, under the better one."""
        self.dns.domains["example.com"] = [(2, "b.test"), (1, "a.test")]
        self.dns.hosts = {"a.test": ["192.0.2.1"], "b.test": ["192.0.2.1", "192.0.2.2"]}
        self.assertEqual(
            [(one.host, one.endpoint.address) for one in self.found("example.com").candidates],
            [("a.test", "192.0.2.1"), ("b.test", "192.0.2.2")],
        )

    def test_disabled(self) -> None:
        """Without DNS no MX records are asked for."""
        self.dns.domains["example.com"] = [(1, "a.test")]
        self.dns.hosts["example.com"] = ["192.0.2.1"]
        self.assertEqual(self.addresses("example.com", smtp_dns_support_level="disabled"), ["192.0.2.1"])


class LimitTests(_Found):
    """No more is looked up than will be tried."""

    def setUp(self) -> None:
        super().setUp()
        self.dns.domains["example.com"] = [(n, f"h{n}.test") for n in range(1, 10)]
        self.dns.hosts = {f"h{n}.test": [f"192.0.2.{n}"] for n in range(1, 10)}

    def test_enough(self) -> None:
        """Hosts are looked up until there are addresses enough."""
        self.assertEqual(self.addresses("example.com", smtp_mx_address_limit="2"), ["192.0.2.1", "192.0.2.2"])
        self.assertNotIn("A h3.test", self.dns.asked)

    def test_equal_hosts(self) -> None:
        """Among equals too."""
        self.dns.domains["example.com"] = [(1, f"h{n}.test") for n in range(1, 10)]
        self.assertEqual(len(self.addresses("example.com", smtp_mx_address_limit="3")), 3)
        self.assertEqual(len(self.dns.asked), 1 + 3 * 2)

    def test_no_limit(self) -> None:
        """0 is no limit, up to the hundred of Postfix."""
        self.assertEqual(len(self.addresses("example.com", smtp_mx_address_limit="0")), 9)
        self.dns.hosts["h1.test"] = [f"198.51.100.{n}" for n in range(200)]
        self.assertEqual(len(self.addresses("example.com", smtp_mx_address_limit="0")), 100)

    def test_ipv4_too(self) -> None:
        """Where all addresses so far are of IPv6, one of IPv4 is looked for, and has its place."""
        self.dns.hosts["h1.test"] = [f"2001:db8::{n}" for n in range(1, 8)]
        addresses = self.addresses("example.com")
        self.assertEqual(addresses[-1], "192.0.2.2")
        self.assertEqual(len(addresses), 5)
        self.assertNotIn("A h3.test", self.dns.asked)
        addresses = self.addresses("example.com", inet_protocols="ipv6")
        self.assertEqual(len(addresses), 5)

    def test_families(self) -> None:
        """Only the protocols in use are asked for."""
        self.addresses("example.com", inet_protocols="ipv4", smtp_mx_address_limit="1")
        self.assertEqual(self.dns.asked, ["MX example.com", "A h1.test"])


    def test_together(self) -> None:
        """Hosts of equal preference are looked up a few at a time, those of another only when they are needed."""
        self.dns.domains["example.com"] = [(1, f"h{n}.test") for n in range(1, 9)] + [(2, "h9.test")]
        self.dns.gates = {f"h{n}.test": Deferred() for n in range(1, 9)}
        running = self.find("example.com", inet_protocols="ipv4", smtp_mx_address_limit="3")
        self.assertEqual(len(self.dns.asked), 1 + 3)
        for gate in self.dns.gates.values():
            gate.callback(None)
        self.assertEqual(len(self.successResultOf(running).candidates), 3)
        self.assertEqual(len(self.dns.asked), 1 + 3)

    def test_never_too_many(self) -> None:
        """However many are needed, so that one domain does not take all descriptors."""
        self.dns.domains["example.com"] = [(1, f"h{n}.test") for n in range(1, 10)]
        self.dns.gates = {f"h{n}.test": Deferred() for n in range(1, 10)}
        self.listens = [Endpoint("0.0.0.0", 25)]
        for limit in ("1", "0"):
            self.dns.asked.clear()
            running = self.find("example.com", smtp_mx_address_limit=limit)
            self.assertEqual(len(self.dns.asked), 1 + 5 * 2)
            running.cancel()
            self.failureResultOf(running)

    def test_most_records(self) -> None:
        """Of thousands of MX records the hundred best count."""
        self.dns.domains["example.com"] = [(n, f"h{n}.test") for n in range(2000, 0, -1)]
        self.dns.hosts = {"h100.test": ["192.0.2.1"], "h101.test": ["192.0.2.2"]}
        found = self.found("example.com")
        self.assertEqual([one.host for one in found.candidates], ["h100.test"])
        self.assertEqual(len(found.records), 100)
        self.assertEqual(len(self.dns.asked), 1 + 100 * 2)


class TimeTests(_Found):
    """One nexthop takes no longer than half a minute, whatever its hosts are."""

    def setUp(self) -> None:
        super().setUp()
        self.dns.domains["example.com"] = [(n, f"h{n}.test") for n in range(1, 10)]
        self.gates: list[Deferred[None]] = [Deferred() for _ in range(9)]
        self.dns.gates = {f"h{n + 1}.test": gate for n, gate in enumerate(self.gates)}
        self.dns.hosts = {f"h{n}.test": SOFT for n in range(2, 10)}

    def slow(self, number: int) -> None:
        """This host's answer comes, after ten seconds."""
        self.clock.advance(10.0)
        self.gates[number].callback(None)

    def test_found_counts(self) -> None:
        """What was found until then is taken; the rest is asked for again soon."""
        self.dns.hosts["h1.test"] = ["192.0.2.1"]
        running = self.find("example.com")
        self.slow(0)
        self.assertNoResult(running)
        self.slow(1)
        found = self.successResultOf(running)
        self.assertEqual([one.host for one in found.candidates], ["h1.test"])
        self.assertTrue(found.partial)
        self.assertNotIn("A h3.test", self.dns.asked)

    def test_nothing_found(self) -> None:
        """Mail waits, even where those that were asked do not exist."""
        del self.dns.hosts["h2.test"]
        running = self.find("example.com")
        self.slow(0)
        self.slow(1)
        error = self.failureResultOf(running, RouteError).value
        self.assertEqual(error.status, "4.4.3")
        self.assertIn("name=h3.test: others before it took too long", error.text)

    def test_loop(self) -> None:
        """That a host not looked up any more has our name is seen all the same."""
        self.dns.domains["example.com"] = [(1, "h1.test"), (2, "h2.test"), (3, "h3.test"), (4, "host.example.com")]
        running = self.find("example.com:2525")
        self.slow(0)
        self.slow(1)
        self.assertEqual(self.failureResultOf(running, RouteError).value.status, "4.4.4")


class LoopTests(_Found):
    """Mail never goes to ourselves (spec 6.1.7)."""

    def setUp(self) -> None:
        super().setUp()
        self.listens = [Endpoint("0.0.0.0", 25)]
        self.dns.domains["example.com"] = [(1, "a.test"), (2, "us.test"), (2, "b.test"), (3, "c.test")]
        self.dns.hosts = {
            "a.test": ["192.0.2.1"], "us.test": ["192.0.2.99"], "b.test": ["192.0.2.2"], "c.test": ["192.0.2.3"],
        }

    def test_better_only(self) -> None:
        """Hosts as good as we are, or worse, are left out."""
        self.assertEqual(self.addresses("example.com"), ["192.0.2.1"])
        self.assertTrue(self.found("example.com").backup)
        self.dns.domains["example.com"] = [(1, "a.test")]
        self.assertFalse(self.found("example.com").backup)

    def test_far_behind(self) -> None:
        """Where there is a fallback relay, we are looked for behind hosts enough as well."""
        self.assertFalse(self.found("example.com", smtp_mx_address_limit="1").backup)
        found = self.found("example.com", smtp_mx_address_limit="1", smtp_fallback_relay="[back.test]")
        self.assertTrue(found.backup)
        self.assertEqual([one.host for one in found.candidates], ["a.test"])

    def test_best(self) -> None:
        """Where we are the best host, mail loops."""
        self.dns.domains["example.com"] = [(2, "us.test"), (2, "b.test"), (3, "c.test")]
        self.assertEqual(self.refused("example.com"), ("5.4.6", "mail for example.com loops back to myself"))

    def test_all_equals_known(self) -> None:
        """Equals of ours are known as such, however few addresses are wanted."""
        self.dns.domains["example.com"] = [(2, "us.test"), *((2, f"h{n}.test") for n in range(6))]
        self.dns.hosts |= {f"h{n}.test": [f"198.51.100.{n}"] for n in range(6)}
        self.assertEqual(self.refused("example.com", smtp_mx_address_limit="1")[0], "5.4.6")

    def test_better_unknown(self) -> None:
        """Where a better host could not be found, mail waits."""
        del self.dns.hosts["a.test"]
        self.assertEqual(self.refused("example.com"), ("4.4.4", "unable to find primary relay for example.com"))

    def test_name(self) -> None:
        """Our name is enough, whatever its addresses are."""
        self.dns.domains["example.com"] = [(1, "host.example.com"), (2, "b.test")]
        self.assertEqual(self.refused("example.com")[0], "5.4.6")

    def test_other_port(self) -> None:
        """Another server on this host is not us."""
        self.listens = [Endpoint("0.0.0.0", 2525)]
        self.dns.domains["example.com"] = [(1, "host.example.com")]
        self.dns.hosts["host.example.com"] = ["192.0.2.99"]
        self.assertEqual(self.addresses("example.com"), ["192.0.2.99"])
        self.assertEqual(self.refused("example.com:2525")[0], "5.4.6")

    def test_without_mx(self) -> None:
        """Hosts and addresses are looked at just the same."""
        self.assertEqual(self.refused("[us.test]")[0], "5.4.6")
        self.assertEqual(self.refused("us.test")[0], "5.4.6")
        self.assertEqual(self.refused("[192.0.2.99]")[0], "5.4.6")
        self.assertEqual(self.refused("[host.example.com]")[0], "5.4.6")


class HostTests(_Found):
    """In brackets stands a host or an address, and no MX records are asked for."""

    def test_host(self) -> None:
        """A host's addresses are its candidates."""
        self.dns.hosts["relay.test"] = ["192.0.2.1", "2001:db8::1"]
        found = self.found("[relay.test]:587", smtp_address_preference="ipv4")
        self.assertEqual(
            [one.relay for one in found.candidates], ["relay.test[192.0.2.1]:587", "relay.test[2001:db8::1]:587"]
        )
        self.assertEqual(found.records, ())
        self.assertEqual(sorted(self.dns.asked), ["A relay.test", "AAAA relay.test"])

    def test_one_family_fails(self) -> None:
        """Addresses of one family are enough."""
        self.dns.hosts["relay.test"] = ["192.0.2.1"]
        self.assertEqual(self.addresses("[relay.test]"), ["192.0.2.1"])

    def test_unknown(self) -> None:
        """A host that cannot be found defers or bounces."""
        self.assertEqual(self.refused("[relay.test]")[0], "5.4.4")
        self.dns.hosts["relay.test"] = SOFT
        self.assertEqual(self.refused("[relay.test]")[0], "4.4.3")

    def test_address(self) -> None:
        """An address needs no question."""
        found = self.found("[127.0.0.1]:2526")
        self.assertEqual([one.relay for one in found.candidates], ["127.0.0.1[127.0.0.1]:2526"])
        self.assertEqual((self.dns.asked, found.good_until), ([], float("inf")))

    def test_wrong_family(self) -> None:
        """An address of a protocol that is not in use cannot be reached."""
        self.assertEqual(self.refused("[2001:db8::1]", inet_protocols="ipv4")[0], "5.4.4")
