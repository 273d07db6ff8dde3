"""
The sessions of one process as C{smtpreuse sessions} shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from smtpreuse.agent.lane import Agent
from smtpreuse.model.queueview import SessionRow
from smtpreuse.model.reuse import ReuseKey, SessionFacts
from smtpreuse.scache.service import ConnectionCache


def rows(agent: Agent | None, cache: ConnectionCache | None) -> Iterator[SessionRow]:
    """Every session that is connecting, busy or resting in this process."""
    if agent is not None:
        for lane, opening, session in agent.at_work():
            if session is not None:
                yield _row(lane.site.name, session.key, session.facts, "busy", None)
            elif opening is not None:
                yield SessionRow(
                    site=lane.site.name, endpoint="", host="", state="connecting", opened=opening,
                    idle_since=None, uses=0, level="", protocol=None, cipher=None, verdict=None, process=os.getpid(),
                )  # fmt: skip
    if cache is not None:
        for resting in cache.sessions():
            yield _row(resting.site.name, resting.key, resting.facts, "resting", resting.since)


def _row(site: str, key: ReuseKey, facts: SessionFacts, state: str, idle_since: float | None) -> SessionRow:
    tls = facts.tls
    verdict = None if tls is None else "Untrusted" if tls.chain else "Anonymous"
    return SessionRow(
        site=site, endpoint=str(key.endpoint), host=facts.host, state=state, opened=facts.opened,
        idle_since=idle_since, uses=facts.uses, level=facts.level.name.lower(),
        protocol=tls.protocol if tls else None, cipher=tls.cipher if tls else None, verdict=verdict,
        process=os.getpid(),
    )  # fmt: skip
