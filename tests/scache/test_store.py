"""
Tests of L{smtpreuse.scache.store}.
"""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.policy import Level
from smtpreuse.model.reuse import Plaintext
from smtpreuse.model.route import Site
from smtpreuse.scache.rules import CacheRules
from smtpreuse.scache.store import Resting, Store
from smtpreuse.tls.carry import may_carry
from tests.conformance_cache import SITE, START, facts, key, needs

OTHER = Site(name="other.example.com")
RULES = CacheRules(idle_limit=15.0, limit=100, limit_per_key=20)


class StoreTests(SynchronousTestCase):
    """
    The books decide at once, return what is to be closed, and are empty when nothing rests.
    """

    def setUp(self) -> None:
        self.store = Store(RULES)

    def save(self, now: float = START, destination: str = "example.com", **values: object) -> Resting:
        """Save what is to stay."""
        session, over = self.store.save(
            destination, SITE, values.get("of") or key(), values.get("proved") or facts(), now
        )
        self.assertEqual(over, ())
        return session

    def test_no_destination(self) -> None:
        """A session that was saved without a destination is found by its endpoint only."""
        session = self.save(destination="")
        for destination in ("", "example.com"):
            self.assertIsNone(self.store.find_destination(destination, [needs()], START).session)
        self.assertIs(self.store.find_endpoint(needs(), START).session, session)

    def test_entry(self) -> None:
        """An entry says since when and until when it rests, and is numbered in the order of saving."""
        first, second = self.save(), self.save(START + 1, proved=facts(good_until=START + 3))
        self.assertEqual((first.since, first.until), (START, START + 15))
        self.assertEqual((first.destination, first.site), ("example.com", SITE))
        self.assertEqual((second.since, second.until), (START + 1, START + 3))
        self.assertLess(first.number, second.number)
        self.assertEqual(list(self.store), [first, second])
        self.assertEqual((len(self.store), self.store.count(None), self.store.count(SITE)), (2, 2, 2))
        self.assertEqual(self.store.count(OTHER), 0)

    def test_repr(self) -> None:
        """Its representation counts."""
        self.save()
        self.save(of=key("192.0.2.2"))
        self.save(destination="example.test")
        self.assertEqual(repr(self.store), "<Store 3 resting, 2 keys, 1 sites, 2 destinations>")

    def test_remove(self) -> None:
        """What is removed is gone from every index; what is not there is no error."""
        session = self.save()
        self.assertTrue(self.store.remove(session))
        self.assertFalse(self.store.remove(session))
        self.assertIsNone(self.store.find_endpoint(needs(), START).session)
        self.assertEqual(repr(self.store), "<Store 0 resting, 0 keys, 0 sites, 1 destinations>")

    def test_ended(self) -> None:
        """Sessions that their server ended after the same rest teach how long those of the site may rest."""
        for start in (START, START + 20):
            self.store.ended(self.save(start), start + 10)
        self.assertEqual(repr(self.store), "<Store 0 resting, 0 keys, 0 sites, 1 destinations>")
        self.assertEqual(self.save(START + 40).until, START + 49)
        other, _ = self.store.save("example.test", OTHER, key(), facts(), START + 40)
        self.assertEqual(other.until, START + 55)
        self.store = Store(evolve(RULES, idle_limit=5.0))
        for start in (START, START + 20):
            self.store.ended(self.save(start), start + 10)
        self.assertEqual(self.save(START + 40).until, START + 45)

    def test_time_is_up(self) -> None:
        """A session's last moment is not its any more, to the tick; what is late comes back to be closed."""
        session = self.save()
        self.assertEqual(self.store.expire(START + 14.999), ())
        found = self.store.find_endpoint(needs(), START + 15)
        self.assertEqual((found.session, found.over), (None, (session,)))
        again = self.save()
        found = self.store.find_destination("example.com", [needs()], START + 14.999)
        self.assertEqual((found.session, found.over), (again, ()))
        last = self.save()
        self.assertEqual(self.store.expire(START + 15), (last,))

    def test_next_expiry(self) -> None:
        """The next expiry is that of the session that ends first; none while the books are empty."""
        self.assertIsNone(self.store.next_expiry())
        self.save()
        self.assertEqual(self.store.next_expiry(), START + 15)
        self.save(proved=facts(good_until=START + 4))
        self.assertEqual(self.store.next_expiry(), START + 4)
        self.store.expire(START + 15)
        self.store.expire(START + 30)
        self.assertIsNone(self.store.next_expiry())

    def test_destinations_expire(self) -> None:
        """A destination leads to an endpoint for as long as a session could rest since it was last served there."""
        self.save()
        self.assertIsNotNone(self.store.find_endpoint(needs(), START + 1).session)
        self.save(START + 10, "example.test")
        found = self.store.find_destination("example.com", [needs()], START + 15)
        self.assertIsNone(found.session, "it served example.com 15 seconds ago")
        self.assertIsNotNone(self.store.find_destination("example.test", [needs()], START + 15).session)

    def test_destinations_are_forgotten(self) -> None:
        """What leads nowhere does not stay in memory."""
        for number in range(50):
            self.save(START, f"{number}.example.com", of=key(f"192.0.2.{number}"))
        self.store.expire(START + 15)
        self.store.expire(START + 30)
        self.assertEqual(repr(self.store), "<Store 0 resting, 0 keys, 0 sites, 0 destinations>")

    def test_refreshed_destination(self) -> None:
        """A destination that is served again leads there again for the whole time."""
        self.save()
        self.store.find_endpoint(needs(), START + 10)
        self.save(START + 10)
        self.assertIsNotNone(self.store.find_destination("example.com", [needs()], START + 24.9).session)

    def test_over_on_the_way(self) -> None:
        """A look-up by destination passes what is over, returns it, and finds what is behind it."""
        late = self.save(proved=facts(good_until=START + 1))
        good = self.save(of=key("192.0.2.2"))
        found = self.store.find_destination("example.com", [needs(), needs(key("192.0.2.2"))], START + 2)
        self.assertEqual((found.session, found.over), (good, (late,)))

    def test_over_among_equals(self) -> None:
        """What is over does not hide an equal session that was saved before it."""
        good = self.save()
        late = self.save(proved=facts(good_until=START + 1))
        found = self.store.find_endpoint(needs(), START + 2)
        self.assertEqual((found.session, found.over), (good, (late,)))

    def test_any_number_of_uses(self) -> None:
        """Where no limit is given, a session rests however often it was used."""
        session = self.save(proved=facts(uses=1000))
        self.assertEqual(self.store.find_endpoint(needs(), START).session, session)

    def test_unknown(self) -> None:
        """What was never saved is not found."""
        found = self.store.find_destination("example.com", [needs()], START)
        self.assertEqual((found.session, found.over), (None, ()))
        found = self.store.find_endpoint(needs(), START)
        self.assertEqual((found.session, found.over), (None, ()))

    def test_level(self) -> None:
        """A request that must be encrypted does not ride on plaintext; one that need not does."""
        self.save(proved=facts(tls=None, plaintext=Plaintext.NOT_OFFERED))
        self.assertIsNone(self.store.find_endpoint(needs(level=Level.ENCRYPT), START).session)
        self.assertIsNone(self.store.find_destination("example.com", [needs(level=Level.ENCRYPT)], START).session)
        self.assertIsNotNone(self.store.find_destination("example.com", [needs()], START).session)

    def test_plaintext_fallback(self) -> None:
        """A session that fell back to plaintext served its one request: it does not rest."""
        for reason in (Plaintext.FAILED, Plaintext.REFUSED):
            session, over = self.store.save("example.com", SITE, key(), facts(tls=None, plaintext=reason), START)
            self.assertEqual(over, (session,))
        self.assertEqual(len(self.store), 0)

    def test_dropped_in_order(self) -> None:
        """The session whose end is the closest goes first; of several that end together, the one saved first."""
        a, b = self.save(), self.save()
        c = self.save(proved=facts(good_until=START + 5))
        self.assertEqual(self.store.drop(SITE, 3), ())
        self.assertEqual(self.store.drop(SITE, 1), (c, a))
        self.assertEqual(self.store.drop(OTHER, 0), ())
        self.assertEqual(self.store.drop(None, 0), (b,))


class TurnsTests(SynchronousTestCase):
    """
    Endpoints of a destination take turns, and what leads nowhere is swept out in its time, to the tick.
    """

    def setUp(self) -> None:
        self.store = Store(RULES)

    def save(self, address: str, now: float = START, until: float = START + 900) -> Resting:
        """Save a session to this address."""
        return self.store.save("example.com", SITE, key(address), facts(good_until=until), now)[0]

    def test_least_recently_used(self) -> None:
        """The endpoint that was used last comes last, however many sessions of it rest."""
        addresses = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
        for address in addresses * 2:
            self.save(address)
        wanted = [needs(key(address)) for address in addresses]
        found = [self.store.find_destination("example.com", wanted, START + 1).session for _ in range(6)]
        self.assertEqual([one.key for one in found if one], [key(address) for address in addresses * 2])

    def test_saving_is_no_turn(self) -> None:
        """An endpoint whose session comes back keeps its place."""
        self.save("192.0.2.1")
        self.save("192.0.2.2")
        self.save("192.0.2.1", START + 1)
        wanted = [needs(key("192.0.2.2")), needs(key("192.0.2.1"))]
        found = self.store.find_destination("example.com", wanted, START + 2)
        self.assertEqual(found.session and found.session.key, key("192.0.2.1"))

    def test_forgotten_by_looking(self) -> None:
        """A look-up that finds a destination too old forgets it."""
        self.store.remove(self.save("192.0.2.1"))
        self.assertIsNone(self.store.find_destination("example.com", [needs()], START + 15).session)
        self.assertEqual(repr(self.store), "<Store 0 resting, 0 keys, 0 sites, 0 destinations>")

    def test_swept(self) -> None:
        """The sweep comes once in the time a session may rest; then it takes what leads nowhere, and no earlier."""
        self.store.remove(self.save("192.0.2.1"))
        self.assertEqual(self.store.next_expiry(), START + 15)
        self.store.expire(START + 14.9)
        self.assertIn("1 destinations", repr(self.store))
        self.store.remove(self.save("192.0.2.2", START + 10))
        self.store.expire(START + 15)
        self.assertIn("1 destinations", repr(self.store))
        self.assertEqual(self.store.next_expiry(), START + 30)
        self.store.expire(START + 29)
        self.assertIn("1 destinations", repr(self.store), "it is not looked for before the sweep")
        self.store.expire(START + 30)
        self.assertIn("0 destinations", repr(self.store))

    def test_swept_at_its_last_moment(self) -> None:
        """What leads somewhere until now leads nowhere now."""
        self.store.remove(self.save("192.0.2.1"))
        self.store.expire(START + 15)
        self.assertIn("0 destinations", repr(self.store))

    def test_over_at_once(self) -> None:
        """What ends at this very moment does not rest."""
        session, over = self.store.save("example.com", SITE, key(), facts(good_until=START), START)
        self.assertEqual((over, len(self.store)), ((session,), 0))


_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["save", "destination", "endpoint", "expire", "drop", "pass"]),
        st.integers(0, 3),
        st.integers(0, 2),
        st.integers(0, 20),
    ),
    max_size=60,
)


class AnyHistoryTests(SynchronousTestCase):
    """
    Whatever happens, no session is lost from the books, given away twice, or given to who may not have it.
    """

    @given(_ACTIONS)
    def test_accounts(self, actions: list[tuple[str, int, int, int]]) -> None:
        """What was saved is resting, or came back exactly once; what was found may carry what it was found for."""
        store = Store(CacheRules(idle_limit=15.0, limit=6, limit_per_key=3, most_uses=8))
        now = START
        saved: set[int] = set()
        back: list[int] = []
        for action, number, other, amount in actions:
            this = key(f"192.0.2.{number}")
            destination = f"{other}.example.com"
            site = (SITE, OTHER)[other % 2]
            if action == "save":
                proved = facts(uses=amount // 2, good_until=now + amount)
                session, over = store.save(destination, site, this, proved, now)
                saved.add(session.number)
                back += [one.number for one in over]
            elif action in ("destination", "endpoint"):
                wanted = needs(this, size=amount * 1000, connection_reuse=amount != 3)
                if action == "endpoint":
                    found = store.find_endpoint(wanted, now)
                else:
                    found = store.find_destination(destination, [wanted], now)
                back += [one.number for one in found.over]
                if found.session is not None:
                    back.append(found.session.number)
                    self.assertGreater(found.session.until, now)
                    self.assertTrue(may_carry(found.session.key, found.session.facts, wanted, now, most_uses=8))
            elif action == "expire":
                back += [one.number for one in store.expire(now)]
                self.assertTrue(all(one.until > now for one in store))
            elif action == "drop":
                where = None if amount > 10 else site
                back += [one.number for one in store.drop(where, other)]
                self.assertLessEqual(store.count(where), other)
            else:
                now += amount
            resting = [one.number for one in store]
            self.assertEqual(len(back), len(set(back)))
            self.assertEqual(set(back) | set(resting), saved)
            self.assertEqual(set(back) & set(resting), set())
            self.assertEqual(store.count(SITE) + store.count(OTHER), len(resting))
            self.assertLessEqual(len(resting), 6)
            for one in store:
                self.assertLessEqual(sum(same.key == one.key for same in store), 3)


class AdoptTests(SynchronousTestCase):
    """
    Other rules hold at once: what they leave no place for is closed, and no session rests for longer than it was to.
    """

    def setUp(self) -> None:
        self.store = Store(RULES)

    def save(self, address: str = "192.0.2.1", now: float = START, uses: int = 1) -> Resting:
        """Save a session to this address."""
        session, _ = self.store.save("example.com", SITE, key(address), facts(uses=uses), now)
        return session

    def test_nothing_new(self) -> None:
        """Equal rules change nothing."""
        session = self.save()
        self.assertEqual((self.store.adopt(RULES, START + 1), list(self.store)), ((), [session]))

    def test_idle_limit(self) -> None:
        """A shorter rest holds from the save on; one that is over is over at once."""
        old, young = self.save(), self.save(now=START + 8)
        self.assertEqual(self.store.adopt(evolve(RULES, idle_limit=5.0), START + 10), (evolve(old, until=START + 5),))
        self.assertEqual(list(self.store), [evolve(young, until=START + 13)])
        self.assertEqual(self.store.find_endpoint(needs(), START + 11).session, evolve(young, until=START + 13))
        self.assertEqual(self.save(now=START + 20).until, START + 25)

    def test_longer_rest(self) -> None:
        """A longer rest is for those that are saved from then on."""
        old = self.save()
        self.store.adopt(evolve(RULES, idle_limit=60.0), START + 1)
        self.assertEqual(list(self.store), [old])
        self.assertEqual(self.save(now=START + 2).until, START + 62)

    def test_limits(self) -> None:
        """Of each key, and of all, those go whose end is the closest."""
        sessions = [self.save("192.0.2.1", START + number) for number in range(3)]
        other = self.save("192.0.2.2", START + 3)
        self.assertEqual(self.store.adopt(evolve(RULES, limit_per_key=2), START + 4), (sessions[0],))
        self.assertEqual(self.store.adopt(evolve(RULES, limit=2), START + 4), (sessions[1],))
        self.assertEqual(list(self.store), [sessions[2], other])
        _, over = self.store.save("example.com", SITE, key("192.0.2.3"), facts(), START + 5)
        self.assertEqual(over, (sessions[2],))

    def test_uses(self) -> None:
        """What has served as often as it may from now on goes."""
        self.save(uses=2)
        worn = self.save(uses=3)
        self.assertEqual(self.store.adopt(evolve(RULES, most_uses=2), START + 1), (worn,))
        self.assertEqual(len(self.store), 1)

    def test_take(self) -> None:
        """By their numbers, as far as they rest."""
        first, second = self.save(), self.save("192.0.2.2")
        self.assertEqual(self.store.take([second.number, 99]), (second,))
        self.assertEqual(self.store.take([second.number]), ())
        self.assertEqual(list(self.store), [first])
