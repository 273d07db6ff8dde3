"""
The running service, as its operator's tools see it.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from smtpreuse.agent.lane import Agent
from smtpreuse.interfaces import IServiceView
from smtpreuse.model.queueview import Counters, SessionRow
from smtpreuse.model.reuse import ReuseKey, SessionFacts
from smtpreuse.queue.dispatch import Dispatcher
from smtpreuse.scache.service import ConnectionCache


@implementer(IServiceView)
class ServiceView:
    """Looks at the parts of one process."""

    def __init__(self, dispatcher: Dispatcher, agent: Agent, cache: ConnectionCache, pid: int) -> None:
        self._dispatcher = dispatcher
        self._agent = agent
        self._cache = cache
        self._pid = pid

    def active(self) -> set[str]:
        return self._dispatcher.active()

    def in_flight(self) -> set[str]:
        return self._dispatcher.in_flight()

    def counters(self) -> Counters:
        return self._dispatcher.counters()

    def draining(self) -> bool:
        return self._dispatcher.draining

    def deleted(self, queue_ids: Sequence[str]) -> None:
        self._dispatcher.deleted(queue_ids)

    def flushed(self) -> None:
        self._dispatcher.flushed()

    def sessions(self) -> list[SessionRow]:
        rows = []
        for lane, opening, session in self._agent.at_work():
            if session is not None:
                rows.append(self._row(lane.site.name, session.key, session.facts, "busy", None))
            elif opening is not None:
                rows.append(SessionRow(
                    site=lane.site.name, endpoint="", host="", state="connecting", opened=opening,
                    idle_since=None, uses=0, level="", protocol=None, cipher=None, verdict=None, process=self._pid,
                ))  # fmt: skip
        for resting in self._cache.sessions():
            rows.append(self._row(resting.site.name, resting.key, resting.facts, "resting", resting.since))
        return rows

    def _row(
        self, site: str, key: ReuseKey, facts: SessionFacts, state: str, idle_since: float | None
    ) -> SessionRow:
        tls = facts.tls
        verdict = None if tls is None else "Untrusted" if tls.chain else "Anonymous"
        return SessionRow(
            site=site, endpoint=str(key.endpoint), host=facts.host, state=state, opened=facts.opened,
            idle_since=idle_since, uses=facts.uses, level=facts.level.name.lower(),
            protocol=tls.protocol if tls else None, cipher=tls.cipher if tls else None, verdict=verdict,
            process=self._pid,
        )  # fmt: skip
