"""
Tests of L{smtpreuse.roles.view}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.interfaces import IServiceView
from smtpreuse.model.queueview import ProcessRow, SessionRow
from smtpreuse.roles.view import ServiceView
from tests.queue.world import BusyAgent, World, message

ROW = SessionRow(
    site="example.com", endpoint="[192.0.2.1]:25", host="mx.example.com", state="busy", opened=5.0, idle_since=None,
    uses=3, level="may", protocol=None, cipher=None, verdict=None, process=4711,
)  # fmt: skip

PROCESS = ProcessRow(name="smtp 1", process=4712, started=1.0, sessions=3)


class FakeDelivery:
    """Delivery with one session."""

    async def sessions(self) -> list[SessionRow]:
        return [ROW]

    def processes(self) -> list[ProcessRow]:
        return [PROCESS]


class ViewCase(SynchronousTestCase):
    """A view of a dispatcher, and of sessions that the test makes."""

    def setUp(self) -> None:
        self.agent = BusyAgent()
        self.world = World(self.agent)
        self.view = ServiceView(self.world.dispatcher, FakeDelivery())  # type: ignore[arg-type]  # a fake


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


    def test_sessions(self) -> None:
        """Those of all processes."""
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.view.sessions())), [ROW])
        self.assertEqual(self.view.processes(), [PROCESS])
