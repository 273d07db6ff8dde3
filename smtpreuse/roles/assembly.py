"""
The one place that says which body stands behind which seam.

Every part gets what it needs as arguments; only here do settings turn into rules, and seams into bodies.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.python.threadpool import ThreadPool
from twisted.web.server import Site

from smtpreuse.agent.lane import Agent
from smtpreuse.config.settings import Settings
from smtpreuse.control.api import make_site
from smtpreuse.control.maillog import MailLog
from smtpreuse.dns.native import resolver_of
from smtpreuse.intake.smtpd import SMTPDFactory
from smtpreuse.interfaces import IResolver, IServiceControl
from smtpreuse.ipc.agents import AgentPool
from smtpreuse.model.queueid import QueueIds
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.dispatch import Dispatcher
from smtpreuse.queue.hosts import HostMemory
from smtpreuse.queue.returns import Returns
from smtpreuse.roles.delivery import make_delivery
from smtpreuse.roles.reactor import IServiceReactor
from smtpreuse.roles.rules import dispatch_rules, profile_of
from smtpreuse.roles.supervise import Supervisor
from smtpreuse.roles.view import ServiceView
from smtpreuse.routing.router import Router
from smtpreuse.scache.service import ConnectionCache
from smtpreuse.spool.sqlite import SQLiteSpool
from smtpreuse.tls.identity import Identity
from smtpreuse.tls.policy import Policies


@frozen(kw_only=True)
class House:
    """
    The parts whose life somebody has to look after.

    @ivar cache: the sessions at rest in this process, or L{None} where they are in another.
    @ivar supervisor: of the other processes, or L{None} where there are none.
    """

    clock: IReactorTime
    maillog: MailLog
    spool: SQLiteSpool
    router: Router
    resolver_of: Callable[[Settings], IResolver]
    agent: Agent | AgentPool
    hosts: HostMemory | None
    cache: ConnectionCache | None
    contents: ContentCache
    returns: Returns
    dispatcher: Dispatcher
    smtpd: SMTPDFactory
    control: Site
    pool: ThreadPool
    supervisor: Supervisor | None


def assemble(
    settings: Settings, reactor: IServiceReactor, service: IServiceControl, identity: Identity | None = None
) -> House:
    """
    Make all parts of the main process. Nothing runs yet, and nothing was opened but the operator's log.

    @param service: does what the operator asks of the whole.
    @param identity: what clients are shown; without one they have no TLS.
    @raise OSError: when the operator's log cannot be opened.
    """
    clock: IReactorTime = reactor
    maillog = MailLog(
        clock, settings.maillog_file, socket.gethostname().partition(".")[0], iso=settings.maillog_time == "iso"
    )
    pool = ThreadPool(0, 4, name="resolver")
    resolver = partial(resolver_of, reactor=reactor, pool=pool)
    router = Router(settings, resolver(settings), Policies(settings), clock.seconds, random.Random())
    spool = SQLiteSpool(
        settings.queue_directory, reactor, clock, queue_minfree=settings.queue_minfree,
        message_size_limit=settings.message_size_limit, reroute=router.hop, fingerprint=router.fingerprint,
    )  # fmt: skip
    delivery = make_delivery(settings, reactor, maillog, identity)
    ids = QueueIds(clock.seconds, os.getpid())
    contents = ContentCache(settings.content_cache_size)
    returns = Returns(spool, router, maillog, ids.next, settings.myhostname)
    dispatcher = Dispatcher(
        spool, router, delivery.agent, delivery.resting, maillog, clock, dispatch_rules(settings, profile_of(settings)),
        contents=contents, returns=returns, random=random.Random(),
    )  # fmt: skip
    smtpd = SMTPDFactory(
        settings, spool, router, dispatcher.accepted, maillog, clock, ids, dispatcher.trouble, delivery.proxy
    )
    view = ServiceView(dispatcher, delivery)
    return House(
        clock=clock, maillog=maillog, spool=spool, router=router, resolver_of=resolver, agent=delivery.agent,
        hosts=delivery.hosts, cache=delivery.cache, contents=contents, returns=returns, dispatcher=dispatcher,
        smtpd=smtpd, control=make_site(spool, view, service, clock, version("smtpreuse")), pool=pool,
        supervisor=delivery.supervisor,
    )  # fmt: skip
