"""
The one place that says which body stands behind which seam.

Every part gets what it needs as arguments; only here do settings turn into rules, and seams into bodies.
"""

from __future__ import annotations

import os
import random
import socket
from importlib.metadata import version

from attrs import frozen
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
)
from twisted.python.threadpool import ThreadPool
from twisted.web.server import Site
from zope.interface import Interface

from smtpreuse.agent.connect import Connector, OpeningRules
from smtpreuse.agent.lane import Agent
from smtpreuse.agent.reuse import Finder, SearchRules
from smtpreuse.agent.rules import AgentRules
from smtpreuse.agent.session import Limits
from smtpreuse.config.settings import Settings
from smtpreuse.control.api import make_site
from smtpreuse.control.maillog import MailLog
from smtpreuse.dns.native import resolver_of
from smtpreuse.intake.smtpd import SMTPDFactory
from smtpreuse.model.queueid import QueueIds
from smtpreuse.model.reuse import Profile
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.dispatch import Dispatcher
from smtpreuse.queue.hosts import HostMemory
from smtpreuse.queue.returns import Returns
from smtpreuse.queue.rules import DispatchRules
from smtpreuse.queue.schedule import JITTER, RetryRules
from smtpreuse.queue.sitequeue import SiteRules
from smtpreuse.roles.view import ServiceView
from smtpreuse.routing.router import Router
from smtpreuse.scache.rules import CacheRules
from smtpreuse.scache.service import ConnectionCache
from smtpreuse.spool.sqlite import SQLiteSpool
from smtpreuse.tls.context import Contexts
from smtpreuse.tls.policy import Policies
from smtpreuse.tlsproxy.service import TLSProxyService

# How much longer than the pause between two transactions a session rests, in seconds: for the next one to come.
PAUSE_MARGIN = 5.0


class IServiceReactor(
    IReactorCore, IReactorFDSet, IReactorSocket, IReactorTCP, IReactorThreads, IReactorTime, IReactorUDP, IReactorUNIX,
    Interface,
):  # fmt: skip
    """What the whole service needs of a reactor."""


@frozen(kw_only=True)
class House:
    """The parts whose life somebody has to look after."""

    maillog: MailLog
    spool: SQLiteSpool
    router: Router
    agent: Agent
    cache: ConnectionCache
    dispatcher: Dispatcher
    smtpd: SMTPDFactory
    control: Site
    pool: ThreadPool


def assemble(settings: Settings, reactor: IServiceReactor) -> House:
    """
    Make all parts, in one process. Nothing runs yet, and nothing was opened but the operator's log.

    @raise OSError: when the operator's log cannot be opened.
    """
    clock: IReactorTime = reactor
    maillog = MailLog(
        clock, settings.maillog_file, socket.gethostname().partition(".")[0], iso=settings.maillog_time == "iso"
    )
    pool = ThreadPool(0, 4, name="resolver")
    router = Router(settings, resolver_of(settings, reactor, pool), Policies(settings), clock.seconds, random.Random())
    spool = SQLiteSpool(
        settings.queue_directory, reactor, clock, queue_minfree=settings.queue_minfree,
        message_size_limit=settings.message_size_limit, reroute=router.hop, fingerprint=router.fingerprint,
    )  # fmt: skip
    rules = agent_rules(settings)
    cache = ConnectionCache(clock, cache_rules(settings))
    connector = Connector(reactor, clock, TLSProxyService(reactor, Contexts()), maillog, rules.opening)
    hosts = HostMemory(clock.seconds, rules.host_pause)
    agent = Agent(
        Finder(cache, connector, hosts, maillog, clock, random.Random(), rules.search), cache, maillog, clock,
        tls_loglevel=rules.tls_loglevel, most_reuses=rules.most_reuses, line_length_limit=rules.line_length_limit,
    )  # fmt: skip
    ids = QueueIds(clock.seconds, os.getpid())
    dispatcher = Dispatcher(
        spool, router, agent, cache, maillog, clock, dispatch_rules(settings, profile_of(settings)),
        contents=ContentCache(settings.content_cache_size),
        returns=Returns(spool, router, maillog, ids.next, settings.myhostname), random=random.Random(),
    )  # fmt: skip
    smtpd = SMTPDFactory(settings, spool, router, dispatcher.accepted, maillog, clock, ids, dispatcher.trouble)
    view = ServiceView(dispatcher, agent, cache, os.getpid())
    return House(
        maillog=maillog, spool=spool, router=router, agent=agent, cache=cache, dispatcher=dispatcher, smtpd=smtpd,
        control=make_site(spool, view, clock, version("smtpreuse")), pool=pool,
    )  # fmt: skip


def resting_time(settings: Settings) -> float:
    """How long a session rests: where there is a pause between transactions it has to last for that."""
    pause = settings.default_destination_rate_delay
    return max(settings.smtp_connection_cache_time_limit, pause + PAUSE_MARGIN if pause else 0.0)


def profile_of(settings: Settings) -> Profile:
    """What all sessions have in common."""
    return Profile(
        helo=settings.smtp_helo_name, source=settings.smtp_bind_address, source6=settings.smtp_bind_address6
    )


def cache_rules(settings: Settings) -> CacheRules:
    """What main.cf says of sessions at rest."""
    return CacheRules(
        idle_limit=resting_time(settings),
        limit=settings.resting_session_limit,
        limit_per_key=settings.resting_session_limit_per_key,
        most_uses=settings.smtp_connection_reuse_count_limit,
    )


def agent_rules(settings: Settings) -> AgentRules:
    """What main.cf says of an agent's work."""
    profile, limits = profile_of(settings), Limits.of(settings)
    return AgentRules(
        opening=opening_rules(settings, profile, limits),
        search=SearchRules(
            profile=profile,
            limits=limits,
            # The second attempt may come so much sooner (RetryRules.next_attempt): in Postfix it goes without TLS.
            fallback_age=(1 - JITTER) * settings.minimal_backoff_time,
            by_family=settings.smtp_address_preference != "any",
        ),
        host_pause=settings.minimal_backoff_time / 5,
        tls_loglevel=settings.smtp_tls_loglevel,
        most_reuses=settings.smtp_connection_reuse_count_limit,
        line_length_limit=settings.smtp_line_length_limit,
    )


def opening_rules(settings: Settings, profile: Profile, limits: Limits) -> OpeningRules:
    """What main.cf says of opening a session."""
    return OpeningRules(
        profile=profile,
        limits=limits,
        connect_timeout=settings.smtp_connect_timeout,
        starttls_timeout=settings.smtp_starttls_timeout,
        lifetime=settings.smtp_connection_reuse_time_limit,
        skip_5xx_greeting=settings.smtp_skip_5xx_greeting,
        discard=frozenset(keyword.upper() for keyword in settings.smtp_discard_ehlo_keywords),
    )


def dispatch_rules(settings: Settings, profile: Profile) -> DispatchRules:
    """What main.cf says of the queue."""
    return DispatchRules(
        site=SiteRules(
            profile=profile,
            initial=settings.initial_destination_concurrency,
            limit=settings.default_destination_concurrency_limit or settings.session_limit,
            rate_delay=settings.default_destination_rate_delay,
            most_uses=settings.smtp_connection_reuse_count_limit,
            on_demand=settings.smtp_connection_cache_on_demand,
            destinations=frozenset(settings.smtp_connection_cache_destinations),
        ),
        retry=RetryRules(
            minimal_backoff=settings.minimal_backoff_time,
            maximal_backoff=settings.maximal_backoff_time,
            lifetime=settings.maximal_queue_lifetime,
            bounce_lifetime=settings.bounce_queue_lifetime,
            soft_bounce=settings.soft_bounce,
        ),
        active_limit=settings.qmgr_message_active_limit,
        recipient_limit=settings.default_destination_recipient_limit or settings.smtpd_recipient_limit,
        lane_limit=settings.session_limit,
        request_sessions=settings.smtp_mx_session_limit,
    )
