"""
Another configuration while the service works: read and checked first, then put into force part by part.

It knows which part goes by which rules, and what becomes of sessions that were opened by others; what a part does with
its rules is the part's. What is under way ends as it was begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from attrs import evolve
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from smtpreuse.agent.lane import Agent
from smtpreuse.config.parameters import PARAMETERS
from smtpreuse.config.settings import Settings
from smtpreuse.errors import AddressError, ConfigurationError, PolicyError, ServiceEnding, SpoolError
from smtpreuse.ipc.agents import AgentPool
from smtpreuse.model.nexthop import Candidate, Nexthop
from smtpreuse.model.policy import Policy
from smtpreuse.model.reuse import Profile
from smtpreuse.roles.assembly import House
from smtpreuse.roles.delivery import supervision
from smtpreuse.roles.descriptors import allow_sessions
from smtpreuse.roles.rules import agent_rules, cache_rules, dispatch_rules, profile_of
from smtpreuse.scache.store import Resting
from smtpreuse.tls.carry import may_carry
from smtpreuse.tls.policy import Policies

# What a resolver is made by: as long as none of these changes, what it has learned stays good.
_RESOLVING = ("smtp_host_lookup", "smtp_dns_support_level", "dns_servers")

_log = Logger()


class Reloader:
    """
    Reads and applies, one reload after the other.

    @ivar settings: what is in force.
    """

    def __init__(
        self, house: House, settings: Settings, read: Callable[[], Settings], reactor: IReactorThreads,
        ending: Callable[[], bool],
    ) -> None:  # fmt: skip
        """
        @param read: reads the configuration as the start did; it may take its time, and is called in a thread.
        @param ending: whether the service is about to end.
        """
        self.settings = settings
        self._house = house
        self._read = read
        self._reactor = reactor
        self._ending = ending
        self._one_by_one = DeferredLock()

    async def reload(self) -> list[str]:
        """
        See L{IServiceControl.reload<smtpreuse.interfaces.IServiceControl.reload>}. What comes of it is logged.
        """
        await self._one_by_one.acquire()
        try:
            return await self._reload()
        except ConfigurationError as error:
            for problem in error.problems:
                _log.error("not reloaded: {problem}", problem=problem)
            raise
        except ServiceEnding as error:
            _log.warn("not reloaded: {problem}", problem=str(error))
            raise
        finally:
            self._one_by_one.release()

    async def _reload(self) -> list[str]:
        self._refuse_at_the_end()
        read = await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._read)
        self._refuse_at_the_end()
        waiting = [name for name in at_start() if getattr(read, name) != getattr(self.settings, name)]
        settings = kept(self.settings, read)
        if settings != self.settings:
            await put_into_force(self._house, self.settings, settings)
            _log.info("reloaded: {file}", file=settings.file or "no file, the defaults")
        else:
            _log.info("reloaded: nothing has changed")
        self.settings = settings
        for name in waiting:
            _log.warn("{name}: takes effect at the next start: {value}", name=name, value=read.text(name))
        return waiting

    def _refuse_at_the_end(self) -> None:
        if self._ending():
            raise ServiceEnding("the service is about to end: the configuration is read at its next start")


def at_start() -> Iterator[str]:
    """The parameters whose change takes effect at a start only."""
    return (parameter.name for parameter in PARAMETERS if parameter.at_start)


def kept(old: Settings, new: Settings) -> Settings:
    """The new settings, as far as they can be had without a start."""
    return evolve(new, **{name: getattr(old, name) for name in at_start()})


async def put_into_force(house: House, old: Settings, new: Settings) -> None:
    """
    Have every part go by new settings. What begins from the call on goes by them; when this returns, mail that waits in
    the queue has its new hops too.

    @raise ConfigurationError: when the operator's log cannot be had; nothing has changed then.
    """
    try:
        house.maillog.adopt(new.maillog_file, iso=new.maillog_time == "iso")
    except OSError as error:
        what = f"cannot be opened ({error.strerror}): {new.maillog_file}"
        raise ConfigurationError([f"{new.source('maillog_file')}: maillog_file: {what}"]) from error
    allow_sessions(new.session_limit)
    policies, hops = Policies(new), house.router.fingerprint
    same = all(getattr(old, name) == getattr(new, name) for name in _RESOLVING)
    house.router.adopt(new, policies, None if same else house.resolver_of(new))
    house.spool.adopt(queue_minfree=new.queue_minfree, message_size_limit=new.message_size_limit)
    house.contents.adopt(new.content_cache_size)
    house.returns.adopt(new.myhostname)
    _sessions(house, new, policies)
    house.smtpd.adopt(new)
    house.dispatcher.adopt(dispatch_rules(new, profile_of(new)))
    if house.router.fingerprint == hops:
        house.dispatcher.reroute()
        _recall(house)
        return
    try:
        await house.dispatcher.rehop(house.spool.reroute(house.router.hop, house.router.fingerprint))
    except SpoolError as error:
        _log.error("queue not routed anew, recipients keep their hops: {reason}", reason=str(error))
    _recall(house)


def _recall(house: House) -> None:
    """What agents in other processes were given and have not begun comes back for its new route."""
    if isinstance(house.agent, AgentPool):
        house.agent.look()


def _sessions(house: House, settings: Settings, policies: Policies) -> None:
    """How sessions are opened, and which of those that rest may go on resting."""
    rules = agent_rules(settings)
    if house.supervisor is not None:
        house.supervisor.adopt(supervision(settings))
    if isinstance(house.agent, Agent):
        house.agent.adopt(rules)
    if house.hosts is not None:
        house.hosts.adopt(rules.host_pause)
    if house.cache is None:
        return
    house.cache.adopt(cache_rules(settings))
    dropped = house.cache.dismiss(
        unfit(house.cache.sessions(), rules.opening.profile, policies.policy, house.clock.seconds())
    )
    if dropped:
        _log.info("sessions at rest ended, as they would not be opened like this any more: {dropped}", dropped=dropped)


def unfit(
    sessions: Iterable[Resting], profile: Profile, policy: Callable[[Nexthop], Policy], now: float
) -> list[int]:  # fmt: skip
    """
    The numbers of the sessions that nothing like them would be opened for any more. Of one that was saved without a
    destination nobody knows whose policy it is to meet: it is among them.

    @param profile: what new sessions have in common.
    @param policy: what a connection for a nexthop must prove; may raise L{PolicyError}.
    @param now: UNIX time.
    """
    return [session.number for session in sessions if not _fits(session, profile, policy, now)]


def _fits(session: Resting, profile: Profile, policy: Callable[[Nexthop], Policy], now: float) -> bool:
    try:
        asked = policy(Nexthop.parse(session.destination))
    except (AddressError, PolicyError):
        return False
    candidate = Candidate(endpoint=session.key.endpoint, host=session.facts.host, preference=0, policy=asked)
    return bool(may_carry(session.key, session.facts, profile.needs(candidate, 0), now))
