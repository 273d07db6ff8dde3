"""
Tests of L{smtpreuse.routing.router}.
"""

from __future__ import annotations

import random

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.config.load import settings_of
from smtpreuse.errors import DeliveryProblem, DNSError, PolicyError
from smtpreuse.interfaces import IRouter
from smtpreuse.model.nexthop import Endpoint, Nexthop
from smtpreuse.model.policy import Level
from smtpreuse.model.records import MXAnswer, MXRecord
from smtpreuse.model.route import Route
from smtpreuse.routing.router import Router
from smtpreuse.tls.policy import Policies
from tests.routing.fakes import FakeResolver

SOFT = DNSError("no answer in time", temporary=True)


class _Routed(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.dns = FakeResolver()
        self.dns.domains["example.com"] = [(10, "a.test")]
        self.dns.hosts = {"a.test": ["192.0.2.1"], "back.test": ["192.0.2.8"], "relay.test": ["192.0.2.9"]}
        self.router = self.of()

    def of(self, **values: str) -> Router:
        """A router under these settings."""
        settings = settings_of(**values)
        return Router(
            settings, self.dns, Policies(settings), self.clock.seconds, random.Random(1),
            local=lambda address: address == "192.0.2.99",
        )  # fmt: skip

    def asked(self, nexthop: str) -> Deferred[Route]:
        """Ask for a route."""
        return Deferred.fromCoroutine(self.router.route(Nexthop.parse(nexthop)))

    def route(self, nexthop: str = "example.com") -> Route:
        """The route."""
        return self.successResultOf(self.asked(nexthop))

    def refused(self, nexthop: str = "example.com") -> str:
        """The status of the error."""
        return self.failureResultOf(self.asked(nexthop), DeliveryProblem).value.status


class RouterTests(_Routed):
    """Routes are complete, and remembered while they are good."""

    def test_seam(self) -> None:
        """It stands behind the seam."""
        self.assertTrue(verifyObject(IRouter, self.router))

    def test_hop(self) -> None:
        """Hops, and their fingerprint, are those of the configuration."""
        self.assertEqual(self.router.hop("user@example.com"), "smtp:example.com")
        self.assertNotEqual(self.router.fingerprint, self.of(relayhost="[relay.test]").fingerprint)

    def test_route(self) -> None:
        """Site, candidates and their policy."""
        self.router = self.of(smtp_tls_policy_maps="inline:{example.com=encrypt}")
        route = self.route()
        self.assertEqual((route.nexthop, route.site.name), (Nexthop(host="example.com"), "a.test"))
        self.assertEqual([one.relay for one in route.candidates], ["a.test[192.0.2.1]:25"])
        self.assertIs(route.candidates[0].policy.level, Level.ENCRYPT)

    def test_site_of_relay(self) -> None:
        """A relay host's site is its own text."""
        self.assertEqual(self.route("[127.0.0.1]:2526").site.name, "[127.0.0.1]:2526")

    def test_remembered(self) -> None:
        """Until the first answer expires nothing is asked."""
        self.dns.good_until = 100.0
        first = self.route()
        self.assertEqual(first.good_until, 100.0)
        self.clock.advance(99.0)
        self.assertIs(self.route(), first)
        self.assertEqual(self.dns.asked.count("MX example.com"), 1)
        self.clock.advance(1.0)
        self.dns.good_until = 200.0
        self.assertEqual(self.route().good_until, 200.0)

    def test_bounds(self) -> None:
        """A route is good for five seconds at least, for an hour at most."""
        self.dns.good_until = 0.0
        self.assertEqual(self.route().good_until, 5.0)
        self.assertEqual(self.route("[192.0.2.7]").good_until, 3600.0)

    def test_partial(self) -> None:
        """A route without a host that may yet be found is asked for again within a minute."""
        self.dns.domains["example.com"] = [(1, "soft.test"), (2, "a.test")]
        self.dns.hosts["soft.test"] = SOFT
        self.assertEqual(self.route().good_until, 60.0)

    def adopt(self, **values: str) -> None:
        """These settings are in force from now on."""
        settings = settings_of(**values)
        self.router.adopt(settings, Policies(settings))

    def test_adopt(self) -> None:
        """Other settings: hops, policies, relays; no route is remembered from before."""
        before = self.route()
        fingerprint = self.router.fingerprint
        self.adopt(smtp_tls_security_level="encrypt", relayhost="[relay.test]", smtp_fallback_relay="[back.test]")
        self.assertEqual(self.router.hop("user@example.com"), "smtp:[relay.test]")
        self.assertNotEqual(self.router.fingerprint, fingerprint)
        route = self.route()
        self.assertIs(before.candidates[0].policy.level, Level.MAY)
        self.assertEqual(
            [(one.host, one.policy.level) for one in route.candidates],
            [("a.test", Level.ENCRYPT), ("back.test", Level.ENCRYPT)],
        )
        self.adopt()
        self.assertEqual((self.router.fingerprint, len(self.route().candidates)), (fingerprint, 1))

    def test_adopt_resolver(self) -> None:
        """Another resolver is asked from then on."""
        self.route()
        other = FakeResolver()
        other.domains["example.com"] = [(10, "b.test")]
        other.hosts["b.test"] = ["192.0.2.2"]
        settings = settings_of()
        self.router.adopt(settings, Policies(settings), other)
        self.assertEqual([one.host for one in self.route().candidates], ["b.test"])

    def test_adopt_in_flight(self) -> None:
        """Who waits for a route gets none that was begun before, whether it would have come or not."""
        for error in (None, SOFT):
            self.setUp()
            self.dns.gate = gate = Deferred()
            waiting = [self.asked("example.com"), self.asked("example.com")]
            self.dns.gate = None
            self.adopt(smtp_tls_security_level="encrypt")
            for each in waiting:
                (candidate,) = self.successResultOf(each).candidates
                self.assertIs(candidate.policy.level, Level.ENCRYPT)
            if error is None:
                gate.callback(None)
            else:
                gate.errback(error)
            self.assertIs(self.route().candidates[0].policy.level, Level.ENCRYPT)

    def test_adopt_in_flight_all_the_same(self) -> None:
        """Nor one that comes although it was given up."""

        class Stubborn(FakeResolver):
            async def mx(self, domain: str) -> MXAnswer:
                try:
                    return await super().mx(domain)
                except CancelledError:
                    return MXAnswer(records=(MXRecord(10, "a.test"),), good_until=1000.0)

        stubborn = Stubborn()
        stubborn.domains, stubborn.hosts, stubborn.gate = self.dns.domains, self.dns.hosts, Deferred()
        settings = settings_of()
        self.router.adopt(settings, Policies(settings), stubborn)
        waiting = self.asked("example.com")
        settings = settings_of(smtp_tls_security_level="encrypt")
        self.router.adopt(settings, Policies(settings), self.dns)
        self.assertIs(self.successResultOf(waiting).candidates[0].policy.level, Level.ENCRYPT)

    def test_adopt_name(self) -> None:
        """It knows itself by its new name, and where it listens."""
        self.router.listen_on([Endpoint("0.0.0.0", 25)])
        self.assertEqual([one.host for one in self.route().candidates], ["a.test"])
        self.adopt(myhostname="a.test")
        self.assertEqual(self.refused(), "5.4.6")

    def test_in_flight_once(self) -> None:
        """Equal routes in flight are one."""
        self.dns.gate = gate = Deferred()
        first, second = self.asked("example.com"), self.asked("example.com")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        gate.callback(None)
        self.assertEqual(self.successResultOf(second).site.name, "a.test")
        self.assertEqual(self.dns.asked.count("MX example.com"), 1)

    def test_failure_not_kept(self) -> None:
        """A failure is not remembered here: the resolver does that."""
        self.dns.domains["example.com"] = SOFT
        self.assertEqual(self.refused(), "4.4.3")
        self.dns.domains["example.com"] = [(10, "a.test")]
        self.route()

    def test_forget_and_close(self) -> None:
        """After forgetting it is asked anew; closing ends what waits."""
        first = self.route()
        self.router.forget()
        self.assertIsNot(self.route(), first)
        self.router.forget()
        self.dns.gate = Deferred()
        waiting = self.asked("example.com")
        self.router.close()
        self.failureResultOf(waiting, CancelledError)

    def test_loop(self) -> None:
        """Where we listen is ourselves, whatever was found before."""
        self.route("[127.0.0.1]:2525")
        self.router.listen_on([Endpoint("127.0.0.1", 2525)])
        self.assertEqual(self.refused("[127.0.0.1]:2525"), "5.4.6")

    def test_policy_error(self) -> None:
        """A policy that cannot be told defers, and nothing is asked."""
        self.router = self.of(smtp_tls_policy_maps="inline:{example.com=dane}", smtp_fallback_relay="[back.test]")
        failure = self.failureResultOf(self.asked("example.com"), PolicyError)
        self.assertEqual(failure.value.status, "4.7.5")
        self.assertEqual(self.dns.asked, [])

    def test_relayhost_gone(self) -> None:
        """A relayhost that does not exist is our own mistake: mail waits."""
        self.router = self.of(relayhost="[gone.test]")
        self.assertEqual(self.refused("[gone.test]"), "4.3.5")
        self.assertEqual(self.refused("[other.test]"), "5.4.4")


class FallbackTests(_Routed):
    """smtp_fallback_relay takes what cannot be found or reached."""

    def setUp(self) -> None:
        super().setUp()
        self.router = self.of(
            smtp_fallback_relay="[back.test]:26, [relay.test]", smtp_tls_policy_maps="inline:{[back.test]:26=none}"
        )

    def test_behind(self) -> None:
        """Its candidates stand behind all others, each relay behind the one before, under its own policy."""
        self.dns.domains["example.com"] = [(65535, "a.test")]
        route = self.route()
        self.assertEqual(
            [one.relay for one in route.candidates],
            ["a.test[192.0.2.1]:25", "back.test[192.0.2.8]:26", "relay.test[192.0.2.9]:25"],
        )
        preferences = [one.preference for one in route.candidates]
        self.assertEqual(preferences, sorted(set(preferences)))
        self.assertEqual([one.policy.level for one in route.candidates], [Level.MAY, Level.NONE, Level.MAY])
        self.assertEqual(route.site.name, "a.test")

    def test_instead(self) -> None:
        """Where the destination cannot be found, now or at all, they stand alone, and not for long."""
        for error in (SOFT, None):
            self.router.forget()
            if error is None:
                del self.dns.domains["example.com"]
            else:
                self.dns.domains["example.com"] = error
            route = self.route()
            self.assertEqual([one.host for one in route.candidates], ["back.test", "relay.test"])
            self.assertEqual((route.site.name, route.good_until), ("example.com", 60.0))

    def test_final(self) -> None:
        """A domain that wants no mail, and a loop, are no reason for a detour."""
        self.router.listen_on([Endpoint("127.0.0.1", 2525)])
        self.dns.domains["example.com"] = [(0, "")]
        self.assertEqual(self.refused(), "5.1.10")
        self.assertEqual(self.refused("[127.0.0.1]:2525"), "5.4.6")

    def test_backup(self) -> None:
        """What we take as an MX host for a better one goes to that alone: a relay might bring it back to us."""
        self.router = self.of(smtp_fallback_relay="[back.test]:26")
        self.router.listen_on([Endpoint("0.0.0.0", 25)])
        self.dns.domains["example.com"] = [(10, "a.test"), (20, "us.test")]
        self.dns.hosts["us.test"] = ["192.0.2.99"]
        self.assertEqual([one.host for one in self.route().candidates], ["a.test"])
        self.router.forget()
        self.dns.hosts["a.test"] = SOFT
        self.assertEqual(self.refused(), "4.4.4")

    def test_one_missing(self) -> None:
        """A relay that cannot be found leaves the others."""
        del self.dns.hosts["back.test"]
        self.assertEqual([one.host for one in self.route().candidates], ["a.test", "relay.test"])
        self.assertEqual(self.route().good_until, 60.0)

    def test_all_missing(self) -> None:
        """Where nothing is left, mail waits: relays stand in our own configuration."""
        self.dns.hosts.clear()
        self.assertEqual(self.refused(), "4.3.5")

    def test_bad_policy(self) -> None:
        """A relay whose policy cannot be told is left out."""
        self.router = self.of(smtp_fallback_relay="[back.test]", smtp_tls_policy_maps="inline:{[back.test]=dane}")
        self.assertEqual([one.host for one in self.route().candidates], ["a.test"])
        self.dns.domains["example.com"] = SOFT
        self.router.forget()
        self.assertEqual(self.refused(), "4.7.5")

    def test_same_endpoint(self) -> None:
        """A relay that is the destination too is tried once."""
        self.assertEqual([one.host for one in self.route("[relay.test]").candidates], ["relay.test", "back.test"])
