"""
Tests of L{smtpreuse.queue.rerouting}: a dispatcher whose mail gets other ways while it works.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import SpoolError
from smtpreuse.model.delivery import Ending, Then
from smtpreuse.model.policy import Level
from smtpreuse.model.reuse import Carrier
from smtpreuse.queue.rules import DispatchRules
from smtpreuse.queue.sitequeue import LINGER
from tests.agent.world import facts
from tests.fakes import candidate
from tests.queue.world import PROFILE, RULES, START, BusyAgent, FakeAgent, World, message, report_of

OLD, NEW = "smtp:example.com", "smtp:[192.0.2.9]"
# One lane to each site, so that a second message waits.
NARROW: DispatchRules = evolve(RULES, site=evolve(RULES.site, initial=1, limit=1))
STRONG = candidate("mx.example.com", level=Level.ENCRYPT)


class RerouteCase(SynchronousTestCase):
    """A dispatcher with one lane to each site, and an agent that holds what it is given."""

    def setUp(self) -> None:
        self.agent = BusyAgent()
        self.world = World(self.agent, NARROW)
        self.dispatcher = self.world.dispatcher
        self.dispatcher.start()

    def accept(self, *names: str) -> None:
        """Messages of these names, to example.com."""
        for name in names:
            self.world.accept(message(name))

    def adopt(self, rules: DispatchRules) -> None:
        """These rules hold, and what routes are made by is another."""
        self.dispatcher.adopt(rules)
        self.dispatcher.reroute()

    def end(self, ending: Ending = Ending.DELIVERED, status: str = "2.0.0", **values: object) -> None:
        """The oldest request in flight ends like this."""
        lane, now = self.agent.first(), self.world.clock.seconds()
        values = {"started": now, "ready": now, "finished": now, **values}
        self.agent.end(lane, report_of(self.agent.held[lane], ending, status, "host said: so", **values))

    def flying(self) -> list[str]:
        """Queue ids of what is in flight."""
        return sorted(request.queue_id for request in self.agent.held.values())

    def carried(self) -> list[tuple[str, str]]:
        """What was ever given out, and to whom."""
        return [(each.queue_id, each.route.candidates[0].host) for each in self.agent.carried]


class AdoptTests(RerouteCase):
    """Other rules hold for what begins from then on, and no route that was made before carries it."""

    def test_waiting(self) -> None:
        """What waits goes by the new route, in its order; what is in flight ends by the old one."""
        self.accept("Q1", "Q2", "Q3")
        self.world.router.routes["example.com"] = (candidate("new.example.com", "192.0.2.7"),)
        self.adopt(NARROW)
        self.assertEqual(self.carried(), [("Q1", "mx.example.com")])
        self.end()
        self.assertEqual(self.carried()[1:], [("Q2", "new.example.com")])
        self.end()
        self.end()
        self.world.turn()
        self.assertEqual(self.carried()[2:], [("Q3", "new.example.com")])
        self.assertEqual((self.world.spool.messages, self.world.in_memory), ({}, 0))

    def test_other_site(self) -> None:
        """The new route may lead to another site, with limits of its own."""
        self.accept("Q1", "Q2")
        self.world.router.sites["example.com"] = "provider"
        self.adopt(NARROW)
        self.assertEqual(self.flying(), ["Q1", "Q2"])

    def test_stronger_policy(self) -> None:
        """A session that proves too little for the new policy is told QUIT, and another one opened."""
        self.accept("Q1", "Q2")
        self.world.router.routes["example.com"] = (STRONG,)
        self.adopt(NARROW)
        self.end()
        self.assertEqual([(turn.then, turn.more) for turn in self.agent.over], [(Then.QUIT, True)])
        self.assertEqual(self.flying(), ["Q2"])

    def test_other_name(self) -> None:
        """A session that was opened under another name likewise."""
        self.accept("Q1", "Q2")
        site = evolve(NARROW.site, profile=evolve(PROFILE, helo="other.example.com"))
        self.adopt(evolve(NARROW, site=site))
        self.end()
        self.assertEqual([(turn.then, turn.more) for turn in self.agent.over], [(Then.QUIT, True)])

    def test_in_doubt(self) -> None:
        """With nothing due nobody knows whether a session would be opened like this: it does not rest."""
        self.accept("Q1")
        self.adopt(NARROW)
        self.accept("Q2")
        self.end()
        self.end()
        self.assertEqual(self.agent.over, [])
        # The second one has shown that it is good.
        self.world.clock.advance(LINGER)
        self.assertEqual([turn.then for turn in self.agent.over], [Then.SAVE])
        self.accept("Q3")
        self.adopt(NARROW)
        self.end()
        self.world.clock.advance(1.0)
        self.assertEqual([turn.then for turn in self.agent.over][1:], [Then.QUIT])

    def test_lingering(self) -> None:
        """A lane that lingers with such a session does not go on lingering."""
        self.accept("Q1")
        self.end()
        self.assertEqual(self.agent.over, [])
        self.adopt(NARROW)
        self.assertEqual([turn.then for turn in self.agent.over], [Then.QUIT])

    def test_not_begun(self) -> None:
        """What was given to a lane that has no session yet comes back and goes by the new route."""
        self.accept("Q1")
        (lane,) = self.agent.held
        self.assertFalse(lane.held)
        self.world.router.routes["example.com"] = (STRONG,)
        self.adopt(NARROW)
        self.assertTrue(lane.held)
        self.end(Ending.UNTOUCHED, uses=0, endpoint=None)
        self.assertEqual([each.route.candidates for each in self.agent.carried][1:], [(STRONG,)])
        self.assertFalse(lane.held)

    def test_while_content_is_read(self) -> None:
        """So does what waits for its content."""
        gate: Deferred[None] = Deferred()
        content = self.world.spool.content

        async def slow(queue_id: str) -> object:
            await gate
            return await content(queue_id)

        self.world.spool.content = slow  # type: ignore[assignment,method-assign]  # it takes its time
        self.world.contents.adopt(0)
        self.accept("Q1")
        self.world.router.routes["example.com"] = (STRONG,)
        self.adopt(NARROW)
        gate.callback(None)
        self.assertEqual([each.route.candidates for each in self.agent.carried], [(STRONG,)])

    def test_limits(self) -> None:
        """A wider window lets more go at once; a narrower one ends lanes after what they carry."""
        self.accept("Q1", "Q2", "Q3", "Q4")
        self.world.clock.advance(1.0)
        self.adopt(evolve(NARROW, site=evolve(NARROW.site, initial=3, limit=20)))
        self.assertEqual(self.flying(), ["Q1", "Q2", "Q3"])
        self.adopt(NARROW)
        self.end()
        self.assertEqual(self.flying(), ["Q2", "Q3"])
        self.end()
        self.assertEqual(self.flying(), ["Q3"])
        self.end()
        self.assertEqual(self.flying(), ["Q4"])

    def test_lane_limit(self) -> None:
        """So does a lower limit for all sites."""
        for number in range(3):
            self.world.accept(message(f"Q{number}", hop=f"smtp:{number}.test"))
        self.adopt(evolve(NARROW, lane_limit=2))
        self.accept("Q3")
        self.end()
        self.assertEqual(self.flying(), ["Q1", "Q2"])
        self.end()
        self.assertEqual(self.flying(), ["Q2", "Q3"])

    def test_rate(self) -> None:
        """A pause between transactions begins, and ends, at once."""
        self.adopt(evolve(NARROW, site=evolve(NARROW.site, rate_delay=60.0)))
        self.accept("Q1", "Q2")
        self.end()
        self.assertEqual(self.flying(), [])
        self.world.clock.advance(30.0)
        self.assertEqual(self.flying(), [])
        self.adopt(NARROW)
        self.assertEqual(self.flying(), ["Q2"])

    def test_retries(self) -> None:
        """When what fails is tried again."""
        self.accept("Q1")
        retry = evolve(NARROW.retry, minimal_backoff=10.0, maximal_backoff=10.0)
        self.adopt(evolve(NARROW, retry=retry))
        self.end(Ending.REFUSED, "4.2.0")
        self.world.turn()
        ((record,),) = self.world.spool.records
        assert record.next_attempt is not None
        self.assertTrue(9.0 <= record.next_attempt - START <= 11.0)


class RehopTests(RerouteCase):
    """Where hops change what waits goes by its new one, and nothing goes twice."""

    def moved(self) -> None:
        """All recipients in the spool get the new hop."""
        messages = self.world.spool.messages
        for queue_id, (given, content) in list(messages.items()):
            recipients = tuple(evolve(each, hop=NEW) for each in given.recipients)
            messages[queue_id] = (evolve(given, recipients=recipients), content)

    def rehop(self, gate: Deferred[None] | None = None) -> Deferred[None]:
        """The configuration of hops is another one."""

        async def change() -> None:
            if gate is not None:
                await gate
            self.moved()

        return Deferred.fromCoroutine(self.dispatcher.rehop(change()))

    def end_all(self) -> None:
        """All that is in flight, and all that follows, is delivered."""
        while self.agent.held:
            self.end()
            self.world.turn()

    def test_waiting(self) -> None:
        """What waits goes by the new hop, once; what is in flight ends where it is, and is not loaded again."""
        self.accept("Q1", "Q2")
        self.successResultOf(self.rehop())
        self.assertEqual(self.flying(), ["Q1", "Q2"])
        self.end_all()
        self.assertEqual(self.carried(), [("Q1", "mx.example.com"), ("Q2", "mx.192.0.2.9")])
        self.assertEqual((self.world.spool.messages, self.world.in_memory), ({}, 0))

    def test_while_it_changes(self) -> None:
        """Nothing is loaded until the spool has the new hops; what came in meanwhile goes by them too."""
        gate: Deferred[None] = Deferred()
        self.accept("Q1", "Q2")
        running = self.rehop(gate)
        asked = len(self.world.spool.asked)
        self.accept("Q3")
        self.dispatcher.flushed()
        self.assertEqual((self.flying(), len(self.world.spool.asked)), (["Q1"], asked))
        gate.callback(None)
        self.successResultOf(running)
        self.end_all()
        self.assertEqual(sorted(self.carried()), [
            ("Q1", "mx.example.com"), ("Q2", "mx.192.0.2.9"), ("Q3", "mx.192.0.2.9")
        ])  # fmt: skip

    def test_while_loading(self) -> None:
        """What the spool is showing under the old hop is waited for first."""
        gate: Deferred[None] = Deferred()
        due = self.world.spool.due

        async def slow(*arguments: object) -> object:
            found = await due(*arguments)  # type: ignore[arg-type]  # those of C{due}
            await gate
            return found

        self.accept("Q1", "Q2")
        self.world.spool.due = slow  # type: ignore[assignment,method-assign]  # it takes its time
        hop = self.dispatcher.hop(OLD)
        hop.backlog = True
        self.dispatcher.want(hop)
        running = self.rehop()
        self.assertNoResult(running)
        self.world.spool.due = due  # type: ignore[method-assign]  # it works as ever
        gate.callback(None)
        self.successResultOf(running)
        self.end_all()
        self.assertEqual(self.carried(), [("Q1", "mx.example.com"), ("Q2", "mx.192.0.2.9")])

    def test_back_from_a_lane(self) -> None:
        """What a lane gives back goes by its new hop."""
        self.accept("Q1")
        self.successResultOf(self.rehop())
        self.end(Ending.UNTOUCHED, uses=0, endpoint=None)
        self.assertEqual(self.carried()[1:], [("Q1", "mx.192.0.2.9")])
        self.end_all()
        self.assertEqual((self.world.spool.messages, self.world.in_memory), ({}, 0))

    def test_not_recorded_yet(self) -> None:
        """What was delivered and is not recorded yet is not delivered once more."""
        self.world.spool.gate = gate = Deferred()
        self.accept("Q1")
        self.end()
        self.world.turn()
        self.successResultOf(self.rehop())
        self.assertEqual(self.flying(), [])
        gate.callback(None)
        self.world.turn()
        self.assertEqual((len(self.carried()), self.world.spool.messages), (1, {}))

    def test_unrouted(self) -> None:
        """What waits for its route goes by its new hop when that is there."""
        self.world.router.gate = gate = Deferred()
        self.accept("Q1")
        running = self.rehop()
        self.successResultOf(running)
        gate.callback(None)
        self.world.router.gate = None
        self.end_all()
        self.assertEqual(self.carried(), [("Q1", "mx.192.0.2.9")])

    def test_failed(self) -> None:
        """A spool that cannot change them leaves them where they are, and mail goes on."""

        async def change() -> None:
            raise SpoolError("io error")

        self.accept("Q1", "Q2")
        self.failureResultOf(Deferred.fromCoroutine(self.dispatcher.rehop(change())), SpoolError)
        self.end_all()
        self.assertEqual(self.carried(), [("Q1", "mx.example.com"), ("Q2", "mx.example.com")])
        self.assertEqual(self.world.spool.messages, {})


class FollowTests(SynchronousTestCase):
    """Also an envelope that is to share a flight is judged by what holds now."""

    def test_follower(self) -> None:
        """A session that proves too little for the new policy gets none."""
        agent = FakeAgent()
        world = World(agent, NARROW)
        world.accept(message("Q1"))
        world.accept(message("Q2"))
        (worker,) = agent.workers
        self.assertEqual(len(self.successResultOf(worker.ask()).requests), 1)
        session = Carrier(key=PROFILE.key(candidate()), facts=facts(uses=20))
        world.router.routes["example.com"] = (candidate("mx.example.com", level=Level.ENCRYPT),)
        world.dispatcher.adopt(NARROW)
        world.dispatcher.reroute()
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(worker.lane.follow(session))))
