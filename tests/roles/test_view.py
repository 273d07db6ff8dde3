"""
Tests of L{smtpreuse.roles.view}.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.agent.session import OpenSession
from smtpreuse.interfaces import ILane, IServiceView
from smtpreuse.model.queueview import SessionRow
from smtpreuse.model.route import Site
from smtpreuse.roles.view import ServiceView
from smtpreuse.scache.store import Resting
from tests.agent.world import PROFILE, TLS, facts, open_session
from tests.fakes import FakeEnd, FakeLane, candidate
from tests.queue.world import BusyAgent, World, message

PID = 4711
PLAIN_ROW = SessionRow(
    site="example.com", endpoint="[192.0.2.1]:25", host="mx.example.com", state="busy", opened=5.0, idle_since=None,
    uses=3, level="may", protocol=None, cipher=None, verdict=None, process=PID,
)  # fmt: skip


class FakeWorkers:
    """An agent whose lanes are what the test says."""

    def __init__(self) -> None:
        self.lanes: list[tuple[ILane, float | None, OpenSession | None]] = []

    def at_work(self) -> Iterator[tuple[ILane, float | None, OpenSession | None]]:
        return iter(self.lanes)


class FakeRest:
    """A cache in which these sessions rest."""

    def __init__(self) -> None:
        self.resting: list[Resting] = []

    def sessions(self) -> list[Resting]:
        return self.resting


class ViewCase(SynchronousTestCase):
    """A view of a dispatcher, and of sessions that the test makes."""

    def setUp(self) -> None:
        self.agent = BusyAgent()
        self.world = World(self.agent)
        self.workers = FakeWorkers()
        self.cache = FakeRest()
        self.view = ServiceView(self.world.dispatcher, self.workers, self.cache, PID)  # type: ignore[arg-type]  # fakes


class QueueTests(ViewCase):
    """What the tools see of the queue is what the dispatcher says."""

    def test_interface(self) -> None:
        """It is what the control socket is given."""
        verifyObject(IServiceView, self.view)

    def test_mail(self) -> None:
        """What is in memory, what of it lanes carry, and what was done."""
        self.world.accept(message("Q1"))
        self.world.accept(message("Q2"))
        self.assertEqual((self.view.active(), self.view.in_flight()), ({"Q1", "Q2"}, {"Q1"}))
        self.agent.end(self.agent.first())
        self.assertEqual(self.view.counters().delivered, 1)

    def test_draining(self) -> None:
        """Whether the service is about to end."""
        self.assertFalse(self.view.draining())
        self.successResultOf(Deferred.fromCoroutine(self.world.dispatcher.drain()))
        self.assertTrue(self.view.draining())

    def test_changed(self) -> None:
        """What the operator deletes is not given out."""
        self.world.accept(message("Q1"))
        self.world.accept(message("Q2"))
        self.view.deleted(["Q2"])
        self.assertEqual(self.view.active(), {"Q1"})

    def test_flushed(self) -> None:
        """What the operator makes due is looked for at once."""
        self.world.dispatcher.start()
        self.world.accept(message("Q1"))
        asked = len(self.world.spool.asked)
        self.view.flushed()
        self.assertGreater(len(self.world.spool.asked), asked)


class SessionsTests(ViewCase):
    """Each session is one row: those of lanes first, then those at rest."""

    def busy(self, **values: object) -> SessionRow:
        """The row of a lane that has such a session."""
        session = open_session(FakeEnd(), Clock(), uses=3, opened=5.0, **values)
        self.workers.lanes = [(FakeLane(), None, session)]
        (row,) = self.view.sessions()
        return row

    def test_none(self) -> None:
        """No rows where there is nothing."""
        self.assertEqual(self.view.sessions(), [])

    def test_busy(self) -> None:
        """A lane with a session: where it goes, and what it has carried."""
        self.assertEqual(self.busy(), PLAIN_ROW)

    def test_tls(self) -> None:
        """What its handshake showed."""
        row = evolve(PLAIN_ROW, protocol=TLS.protocol, cipher=TLS.cipher)
        self.assertEqual(self.busy(tls=TLS), evolve(row, verdict="Untrusted"))
        self.assertEqual(self.busy(tls=evolve(TLS, chain=())), evolve(row, verdict="Anonymous"))

    def test_connecting(self) -> None:
        """A lane that seeks a session: since when; the rest is not known yet."""
        self.workers.lanes = [(FakeLane(), 12.0, None)]
        self.assertEqual(self.view.sessions(), [
            evolve(PLAIN_ROW, endpoint="", host="", state="connecting", opened=12.0, uses=0, level="")
        ])  # fmt: skip

    def test_idle_lane(self) -> None:
        """A lane that has no session and seeks none is no row."""
        self.workers.lanes = [(FakeLane(), None, None)]
        self.assertEqual(self.view.sessions(), [])

    def test_resting(self) -> None:
        """A session at rest: since when."""
        self.busy()
        self.cache.resting = [Resting(
            number=1, destination="example.com", site=Site(name="site"), key=PROFILE.key(candidate()),
            facts=facts(uses=3, opened=5.0), since=40.0, until=55.0,
        )]  # fmt: skip
        self.assertEqual(
            self.view.sessions(), [PLAIN_ROW, evolve(PLAIN_ROW, site="site", state="resting", idle_since=40.0)]
        )
