"""
Tests of L{smtpreuse.roles.rows}.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.agent.session import OpenSession
from smtpreuse.interfaces import ILane
from smtpreuse.model.queueview import SessionRow
from smtpreuse.model.route import Site
from smtpreuse.roles.rows import rows
from smtpreuse.scache.store import Resting
from tests.agent.world import PROFILE, TLS, facts, open_session
from tests.fakes import FakeEnd, FakeLane, candidate

PLAIN_ROW = SessionRow(
    site="example.com", endpoint="[192.0.2.1]:25", host="mx.example.com", state="busy", opened=5.0, idle_since=None,
    uses=3, level="may", protocol=None, cipher=None, verdict=None, process=os.getpid(),
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


class RowsTests(SynchronousTestCase):
    """Each session is one row: those of lanes first, then those at rest."""

    def setUp(self) -> None:
        self.workers = FakeWorkers()
        self.cache = FakeRest()

    def rows(self) -> list[SessionRow]:
        """All of them."""
        return list(rows(self.workers, self.cache))  # type: ignore[arg-type]  # fakes

    def busy(self, **values: object) -> SessionRow:
        """The row of a lane that has such a session."""
        session = open_session(FakeEnd(), Clock(), uses=3, opened=5.0, **values)
        self.workers.lanes = [(FakeLane(), None, session)]
        (row,) = self.rows()
        return row

    def test_none(self) -> None:
        """No rows where there is nothing, or no such part."""
        self.assertEqual(self.rows(), [])
        self.assertEqual(list(rows(None, None)), [])

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
        self.assertEqual(self.rows(), [
            evolve(PLAIN_ROW, endpoint="", host="", state="connecting", opened=12.0, uses=0, level="")
        ])  # fmt: skip

    def test_idle_lane(self) -> None:
        """A lane that has no session and seeks none is no row."""
        self.workers.lanes = [(FakeLane(), None, None)]
        self.assertEqual(self.rows(), [])

    def test_resting(self) -> None:
        """A session at rest: since when."""
        self.busy()
        self.cache.resting = [Resting(
            number=1, destination="example.com", site=Site(name="site"), key=PROFILE.key(candidate()),
            facts=facts(uses=3, opened=5.0), since=40.0, until=55.0,
        )]  # fmt: skip
        self.assertEqual(
            self.rows(), [PLAIN_ROW, evolve(PLAIN_ROW, site="site", state="resting", idle_since=40.0)]
        )
