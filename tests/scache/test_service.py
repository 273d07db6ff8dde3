"""
Tests of L{smtpreuse.scache.service}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.logger import globalLogPublisher

from smtpreuse.interfaces import IConnectionCache
from smtpreuse.scache.rules import CacheRules
from smtpreuse.scache.service import ConnectionCache
from tests import conformance_cache
from tests.conformance_cache import START, facts, key

RULES = CacheRules(idle_limit=15.0, limit=100, limit_per_key=20)


class ConnectionCacheTests(conformance_cache.ConnectionCacheContract):
    """
    The local body keeps the promises of its seam, and shows what it holds.
    """

    def made(self, **values: float) -> IConnectionCache:
        return ConnectionCache(self.clock, CacheRules(**values))

    def test_sessions(self) -> None:
        """The operator sees every session at rest, with what it proved and since when it rests."""
        self.save()
        self.clock.advance(1)
        self.save("example.test", of=key("192.0.2.2"), proved=facts(uses=5))
        self.assertEqual(
            [(s.destination, s.site, s.key, s.facts.uses, s.since) for s in self.cache.sessions()],
            [
                ("example.com", conformance_cache.SITE, key(), 1, START),
                ("example.test", conformance_cache.SITE, key("192.0.2.2"), 5, START + 1),
            ],
        )
        self.assertIn("2 resting, 2 keys, 1 sites, 2 destinations", repr(self.cache))

    def test_close_all(self) -> None:
        """At the end every session is told QUIT, and no timer stays."""
        ends = [self.save(), self.save("example.test")]
        self.cache.close_all()
        for end in ends:
            self.assertQuit(end)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.cache.close_all()

    def test_adopt(self) -> None:
        """By other rules what has rested for too long is told QUIT at once, and the others when their time has come."""
        cache = ConnectionCache(self.clock, RULES)
        self.cache = cache
        old = self.save()
        self.clock.advance(6)
        young = self.save()
        cache.adopt(evolve(RULES, idle_limit=5.0))
        self.assertQuit(old)
        self.assertEqual(young.calls, [])
        self.clock.advance(5)
        self.assertQuit(young)

    def test_adopt_and_lost(self) -> None:
        """A session whose time was cut may still be ended by its server."""
        cache = ConnectionCache(self.clock, RULES)
        self.cache = cache
        end = self.save()
        cache.adopt(evolve(RULES, idle_limit=5.0))
        end.end()
        self.assertEqual(cache.sessions(), [])

    def test_dismiss(self) -> None:
        """Those that are named are told QUIT, and nobody finds them."""
        cache = ConnectionCache(self.clock, RULES)
        self.cache = cache
        ends = [self.save(), self.save("example.test", of=key("192.0.2.2"))]
        self.assertEqual(cache.dismiss([2, 3]), 1)
        self.assertQuit(ends[1])
        self.assertEqual([session.number for session in cache.sessions()], [1])

    def test_one_timer(self) -> None:
        """One timer serves all sessions."""
        for _ in range(10):
            self.save()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_logged_once(self) -> None:
        """What a server said to a session at rest is logged, once, quoted, and not more than so much of it."""
        events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        end = self.save()
        self.clock.advance(2.5)
        end.say(b"421 idle\r\n" + b"x" * 2000)
        end.say(b"421 again\r\n")
        end.end()
        lost = [event for event in events if str(event.get("log_format")).startswith("session at rest lost")]
        self.assertEqual(len(lost), 1)
        self.assertIn("'421 idle\\r\\nxxx", str(lost[0]["reason"]))
        self.assertLess(len(str(lost[0]["reason"])), 600)
        self.assertEqual(lost[0]["rested"], 2.5)
