"""
A process of one role: an agent, a TLS proxy or the connection cache. Run by the main process alone.

Its first descriptor behind the standard ones is a link to that process, which tells it everything: it reads no file,
and it ends with that link at once, whatever it is about.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import version

from attrs import evolve
from setproctitle import setproctitle
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsJSON, globalLogBeginner
from zope.interface import alsoProvides, implementer

from smtpreuse.agent.lane import Agent
from smtpreuse.errors import LinkError
from smtpreuse.interfaces import IConnectionCache, ITLSProxy
from smtpreuse.ipc.caches import CacheDesk, RemoteCache
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.hosts import SharedHosts
from smtpreuse.ipc.lanes import Workbench
from smtpreuse.ipc.link import Link, join
from smtpreuse.ipc.outbox import Outbox
from smtpreuse.ipc.parcel import NO_FAMILY
from smtpreuse.ipc.proxies import ProxyPool
from smtpreuse.ipc.recorder import FlightRecorder
from smtpreuse.ipc.resting import CountTeller
from smtpreuse.ipc.verbs import (
    ABORT,
    BEAT,
    END,
    EVENT,
    HELLO,
    MEET,
    RETIRE,
    RULES,
    SESSIONS,
    SESSIONS_PAGE,
    VERSION,
    Hello,
    Load,
    Meeting,
)
from smtpreuse.model.queueview import SessionRow
from smtpreuse.queue.hosts import HostMemory
from smtpreuse.roles.clock import SteadyClock
from smtpreuse.roles.descriptors import allow_sessions
from smtpreuse.roles.interning import Interning
from smtpreuse.roles.layout import MAIN, SMTP
from smtpreuse.roles.neighbours import Neighbours
from smtpreuse.roles.parts import make_agent
from smtpreuse.roles.reactor import IServiceReactor
from smtpreuse.roles.rows import rows
from smtpreuse.roles.rules import RoleRules, decode
from smtpreuse.scache.service import ConnectionCache
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.desk import ProxyDesk
from smtpreuse.tlsproxy.service import TLSProxyService

LINK, RECORDER = 3, 4
# Links, the reactor's own, what is on its way from one process to another.
_OWN_DESCRIPTORS = 64
_log = Logger()


@implementer(ILogObserver)
class Child:
    """
    One of them, from its first word to its end.
    """

    def __init__(self, reactor: IServiceReactor, role: str, number: int) -> None:
        self._reactor = reactor
        self._role = role
        self._number = number
        self._link = Link(reactor, MAIN)
        self._neighbours = Neighbours()
        self._agent: Agent | None = None
        self._cache: ConnectionCache | None = None
        self._hosts: HostMemory | None = None
        self._bench: Workbench | None = None

    def begin(self) -> None:
        """Say hello to the main process."""
        self._link.when_lost(self._over)
        join(self._reactor, self._link, Descriptor(LINK, NO_FAMILY))
        self._link.serve(BEAT, self._beat)
        self._link.serve(SESSIONS, self._sessions)
        self._link.serve(MEET, self._meet)
        self._link.serve(END, self._end)
        self._link.serve(RULES, self._adopt)
        Deferred.fromCoroutine(self._introduce()).addErrback(self._fault)

    async def _introduce(self) -> None:
        hello = Hello(
            version=VERSION, release=version("smtpreuse"), role=self._role, number=self._number, process=os.getpid()
        )
        try:
            # It may have been refused: the main process says why, and ends this one.
            rules = await self._link.ask(HELLO, hello)
        except LinkError:
            self._over()
        else:
            self._become(decode(rules))

    def _become(self, rules: RoleRules) -> None:
        """Make the parts of this role, and have them answer the main process."""
        neighbours, reactor = self._neighbours, self._reactor
        rules = _bounded(rules)
        proxy: ITLSProxy
        if rules.tls:
            service = proxy = TLSProxyService(reactor, Contexts())
            desk = neighbours.proxy_desk = ProxyDesk(service, rules.tls)
            self._link.serve(RETIRE, lambda _: desk.retire(self._over))
        else:
            proxy = neighbours.pool = ProxyPool(reactor, reactor, neighbours.proxies)
        cache: IConnectionCache
        if rules.cache is not None:
            teller = CountTeller(reactor, self._link, lambda site: resting.resting(site))
            resting = cache = self._cache = ConnectionCache(reactor, rules.cache, teller.changed)
            neighbours.cache_desk = CacheDesk(resting, reactor, neighbours.proxies, Interning().like)
            neighbours.retiring.append(resting.retiring)
        else:
            cache = neighbours.cache = RemoteCache(reactor, reactor, neighbours.proxies)
        if rules.agent is not None:
            outbox = Outbox(reactor, self._link)
            self._hosts = HostMemory(reactor.seconds, rules.agent.host_pause)
            hosts = SharedHosts(self._hosts, self._link)
            agent = self._agent = make_agent(rules.agent, reactor, cache, proxy, hosts, outbox)
            with Descriptor(RECORDER, NO_FAMILY) as memory:
                recorder = FlightRecorder(memory)
            self._bench = Workbench(self._link, agent, outbox, recorder, reactor, agent.fits)
            self._link.serve(ABORT, lambda _: agent.abort())
            neighbours.retiring.append(agent.retiring)
        neighbours.met(MAIN, os.getppid(), self._link, holds_tls=True)

    def _adopt(self, octets: bytes) -> None:
        """Other rules hold from now on. What rests may be what would not be opened like this any more: it goes."""
        rules = _bounded(decode(octets))
        if self._agent is not None and rules.agent is not None:
            self._agent.adopt(rules.agent)
        if self._hosts is not None and rules.agent is not None:
            self._hosts.adopt(rules.agent.host_pause)
        if self._cache is not None and rules.cache is not None:
            self._cache.adopt(rules.cache)
            self._cache.close_all()
        if self._neighbours.proxy_desk is not None:
            self._neighbours.proxy_desk.limit = rules.tls

    def _meet(self, meeting: Meeting, descriptor: Descriptor) -> None:
        link = Link(self._reactor, f"{meeting.role} {meeting.number}")
        # What the other says first must find its answer.
        self._neighbours.met(meeting.role, meeting.process, link, holds_tls=meeting.holds_tls)
        join(self._reactor, link, descriptor)

    def _beat(self, _: None) -> Load:
        desk, sessions = self._neighbours.proxy_desk, 0
        if self._role == SMTP:
            sessions = len(self._bench) if self._bench is not None else 0
        elif self._cache is not None:
            sessions = self._cache.resting(None)
        elif desk is not None:
            sessions = desk.sessions
        return Load(sessions=sessions)

    def _sessions(self, begin: int) -> tuple[SessionRow, ...]:
        return tuple(rows(self._agent, self._cache))[begin : begin + SESSIONS_PAGE]

    def _end(self, _: None) -> None:
        if self._cache is not None:
            self._cache.close_all()
        # Farewells leave within this turn; the answer to this goes too.
        self._reactor.callLater(0.05, self._over)

    def _over(self) -> None:
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            return

    def _fault(self, failure: object) -> None:
        _log.failure("child failed", failure=failure)  # type: ignore[arg-type]  # an errback's argument is a Failure
        self._over()

    def __call__(self, event: LogEvent) -> None:
        """An event of this process's log goes to the main process's."""
        if event["log_level"] >= LogLevel.info:
            event["log_system"] = f"{self._role} {self._number}"
            self._link.tell(EVENT, eventAsJSON(event))


def _bounded(rules: RoleRules) -> RoleRules:
    """What the limits of this process allow for: a session at rest has one descriptor, one whose TLS is here two."""
    resting = rules.cache.limit if rules.cache is not None else 0
    left = allow_sessions(2 * rules.tls + resting) - _OWN_DESCRIPTORS
    if 2 * rules.tls + resting <= left:
        return rules
    tls = min(rules.tls, left // 3) if resting else min(rules.tls, left // 2)
    cache = rules.cache
    if cache is not None:
        cache = evolve(cache, limit=min(cache.limit, max(0, left - 2 * tls)))
    _log.warn("few descriptors: TLS sessions={tls} sessions at rest={cache}", tls=tls, cache=cache and cache.limit)
    return evolve(rules, tls=tls, cache=cache)


def main() -> None:
    """C{python -m smtpreuse.roles.child ROLE NUMBER OFFSET}: the last is the clock's."""
    role, number = sys.argv[1], int(sys.argv[2])
    setproctitle(f"smtpreuse: {role} {number}")
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        # They are for the main process, which has its children end in good order; a terminal sends them to all.
        signal.signal(name, signal.SIG_IGN)
    from twisted.internet import reactor

    alsoProvides(reactor, IServiceReactor)
    SteadyClock(float(sys.argv[3])).drive(IServiceReactor(reactor))
    child = Child(IServiceReactor(reactor), role, number)
    globalLogBeginner.beginLoggingTo([ILogObserver(child)], redirectStandardIO=False, discardBuffer=True)
    child.begin()
    IServiceReactor(reactor).run(installSignalHandlers=False)  # type: ignore[call-arg]  # the interface does not name it


if __name__ == "__main__":
    main()
