"""
Delivery as the main process has it: its own agent and cache, or those of other processes.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList

from smtpreuse.agent.lane import Agent
from smtpreuse.config.settings import Settings
from smtpreuse.errors import LinkError
from smtpreuse.interfaces import IConnectionCache, IMailLog, IResting, ITLSProxy
from smtpreuse.ipc.agents import AgentPool, RemoteAgent
from smtpreuse.ipc.caches import RemoteCache
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.proxies import ProxyPool
from smtpreuse.ipc.recorder import FlightRecorder
from smtpreuse.ipc.resting import RestingCounts
from smtpreuse.ipc.verbs import SESSIONS, SESSIONS_PAGE
from smtpreuse.model.queueview import ProcessRow, SessionRow
from smtpreuse.queue.hosts import HostMemory
from smtpreuse.roles.layout import SCACHE, SMTP, Layout
from smtpreuse.roles.neighbours import Neighbours
from smtpreuse.roles.parts import make_agent
from smtpreuse.roles.process import Child
from smtpreuse.roles.reactor import IServiceReactor
from smtpreuse.roles.rows import rows
from smtpreuse.roles.rules import agent_rules, cache_rules, encode, role_rules
from smtpreuse.roles.supervise import SupervisionRules, Supervisor
from smtpreuse.scache.service import ConnectionCache
from smtpreuse.tls.context import Contexts
from smtpreuse.tls.identity import Identity
from smtpreuse.tlsproxy.desk import ProxyDesk
from smtpreuse.tlsproxy.service import TLSProxyService


@frozen(kw_only=True)
class Delivery:
    """
    @ivar resting: the sessions at rest, wherever they are.
    @ivar proxy: for TLS of clients: no other process has the key.
    @ivar cache: the sessions at rest in this process, or L{None}.
    @ivar hosts: what the agent in this process remembers of endpoints, or L{None}.
    @ivar supervisor: of the other processes, or L{None}.
    """

    agent: Agent | AgentPool
    resting: IResting
    proxy: TLSProxyService
    cache: ConnectionCache | None = None
    hosts: HostMemory | None = None
    supervisor: Supervisor | None = None

    def processes(self) -> list[ProcessRow]:
        """The other processes."""
        children = self.supervisor.children if self.supervisor is not None else []
        return [
            ProcessRow(name=child.name, process=child.process, started=child.started, sessions=child.sessions)
            for child in children
        ]

    async def sessions(self) -> list[SessionRow]:
        """Every session of every process; those of one that does not answer are left out."""
        found = list(rows(self.agent if isinstance(self.agent, Agent) else None, self.cache))
        if self.supervisor is not None:
            links = [child.link for child in self.supervisor.children]
            answers = await DeferredList([Deferred.fromCoroutine(_sessions(link)) for link in links])
            for _, answer in answers:
                found += answer
        return found


async def _sessions(link: Link) -> list[SessionRow]:
    found: list[SessionRow] = []
    try:
        while page := await link.ask(SESSIONS, len(found)):
            found += page
            if len(page) < SESSIONS_PAGE:
                break
    except LinkError:
        return []
    return found


def supervision(settings: Settings) -> SupervisionRules:
    """What main.cf says of the other processes."""
    layout = Layout.of(settings)
    return SupervisionRules(
        layout=layout, rules=lambda role: encode(role_rules(role, settings, layout)),
        watchdog=settings.role_watchdog_timeout, proxy_life=settings.max_idle * settings.max_use,
        proxy_idle=settings.max_idle, proxy_limit=settings.tlsproxy_session_limit,
    )  # fmt: skip


def make_delivery(
    settings: Settings, reactor: IServiceReactor, maillog: IMailLog, identity: Identity | None
) -> Delivery:
    """
    Roles in processes of their own, as the layout has it; the rest is here.

    @param identity: what clients are shown.
    """
    layout = Layout.of(settings)
    neighbours = Neighbours()
    service = TLSProxyService(reactor, Contexts(identity))
    proxy: ITLSProxy = service
    if layout.tlsproxy:
        proxy = neighbours.pool = ProxyPool(reactor, reactor, neighbours.proxies)
    else:
        neighbours.proxy_desk = ProxyDesk(service, settings.session_limit)
    counts = RestingCounts()
    pool = AgentPool(reactor)
    cache: ConnectionCache | None = None
    hosts: HostMemory | None = None
    agent: Agent | AgentPool = pool
    resting: IResting = counts
    if not layout.smtp:
        rules = agent_rules(settings)
        seam: IConnectionCache
        if layout.scache:
            seam = neighbours.cache = RemoteCache(reactor, reactor, neighbours.proxies)
        else:
            seam = resting = cache = ConnectionCache(reactor, cache_rules(settings))
            neighbours.retiring.append(cache.retiring)
        hosts = HostMemory(reactor.seconds, rules.host_pause)
        agent = own = make_agent(rules, reactor, seam, proxy, hosts, maillog)
        neighbours.retiring.append(own.retiring)
    agents: dict[Child, RemoteAgent] = {}

    def up(child: Child) -> None:
        neighbours.met(child.role, child.process, child.link, holds_tls=layout.holds_tls(child.role))
        if child.role == SCACHE or (child.role == SMTP and not layout.scache):
            counts.met(child.link)
        if child.role == SMTP:
            assert child.recorder is not None, "agents have one"
            recorder = FlightRecorder(child.recorder)
            agents[child] = RemoteAgent(child.link, child.process, recorder, maillog, reactor, pool.gossip)
            pool.join(agents[child])

    def down(child: Child) -> None:
        remote = agents.pop(child, None)
        if remote is not None:
            pool.part(remote)

    supervisor = Supervisor(reactor, supervision(settings), up=up, down=down) if layout.several else None
    return Delivery(agent=agent, resting=resting, proxy=service, cache=cache, hosts=hosts, supervisor=supervisor)
