"""
Starts the processes of the other roles, looks after them, and makes them known to each other.

One that ends is replaced, at once the first time and then later and later; one that does not answer is killed. It knows
nothing of mail. Source of its behaviour: Postfix's master(8).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from smtpreuse.errors import LinkError
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import join, pair
from smtpreuse.ipc.recorder import made
from smtpreuse.ipc.verbs import BEAT, END, EVENT, HELLO, MEET, RETIRE, RULES, VERSION, Hello, Meeting
from smtpreuse.roles.layout import SCACHE, SMTP, TLSPROXY, Layout
from smtpreuse.roles.process import Child, State
from smtpreuse.roles.reactor import IServiceReactor

BEAT_EVERY = 5.0
# Pauses before a child is started again, in seconds: the first, and the longest. One that lived so long begins anew.
_FIRST_PAUSE, _LONGEST_PAUSE, _PROVED = 0.25, 30.0, 60.0
# Of a role's sessions so many, as a share of what they may have, are reason for another process.
_FULL = 0.8


@frozen(kw_only=True)
class SupervisionRules:
    """
    @ivar rules: for a role, what a child of it is told.
    @ivar watchdog: seconds without an answer after which one is killed.
    @ivar proxy_life: seconds after which a TLS proxy is replaced.
    @ivar proxy_idle: seconds that a surplus TLS proxy may have no session.
    @ivar proxy_limit: sessions of one TLS proxy.
    """

    layout: Layout
    rules: Callable[[str], bytes]
    watchdog: float
    proxy_life: float
    proxy_idle: float
    proxy_limit: int


class Supervisor:
    """
    @ivar children: those that live.
    """

    log = Logger()

    def __init__(
        self, reactor: IServiceReactor, rules: SupervisionRules, *, up: Callable[[Child], object],
        down: Callable[[Child], object],
    ) -> None:  # fmt: skip
        """
        @param up: told of a child that has said hello.
        @param down: told of one that was up and is gone.
        """
        self.reactor = reactor
        self.children: list[Child] = []
        self._rules = rules
        self._up = up
        self._down = down
        self._numbers = dict.fromkeys((SMTP, TLSPROXY, SCACHE), 0)
        self._failures = dict.fromkeys((SMTP, TLSPROXY, SCACHE), 0)
        self._ending = False
        self._timers: set[IDelayedCall] = set()
        self._complete: list[Deferred[None]] = []
        self._empty: Deferred[None] | None = None

    def now(self) -> float:
        """By the service's clock."""
        return self.reactor.seconds()

    def start(self) -> None:
        """Start all that the layout has."""
        layout = self._rules.layout
        for role, wanted in ((SCACHE, layout.scache), (TLSPROXY, layout.tlsproxy), (SMTP, layout.smtp)):
            for _ in range(wanted):
                self._spawn(role)
        self._later(BEAT_EVERY, self._beat)

    async def complete(self, limit: float) -> None:
        """Wait until every child that was started is up, but not for longer than this, in seconds."""
        if any(child.state is State.STARTING for child in self.children):
            waiter: Deferred[None] = Deferred()
            self._complete.append(waiter)
            # A child that will not start is no reason to take no mail.
            self._later(limit, self._be_content)
            await waiter

    def _be_content(self) -> None:
        complete, self._complete = self._complete, []
        for waiter in complete:
            waiter.callback(None)

    def adopt(self, rules: SupervisionRules) -> None:
        """Other rules hold from now on; children are told theirs."""
        self._rules = rules
        for child in self.children:
            if child.state in (State.UP, State.RETIRING):
                child.link.tell(RULES, rules.rules(child.role))

    async def stop(self, limit: float) -> None:
        """End them all in good order, and those that do not by force."""
        self._ending = True
        for timer in list(self._timers):
            if timer.active():
                timer.cancel()
        self._timers.clear()
        for child in self.children:
            Deferred.fromCoroutine(self._end(child)).addErrback(lambda _: None)
        if self.children:
            forced = self.reactor.callLater(limit, self._kill_all)
            self._empty = Deferred()
            await self._empty
            if forced.active():
                forced.cancel()

    # A child's life

    def _spawn(self, role: str) -> None:
        self._numbers[role] += 1
        child = Child(self.reactor, role, self._numbers[role], self.ended)
        try:
            ours, theirs = pair()
            with ours, theirs:
                descriptors = {0: os.open(os.devnull, os.O_RDONLY), 1: 2, 2: 2, 3: theirs.fileno()}
                try:
                    if role == SMTP:
                        child.recorder = made()
                        descriptors[4] = child.recorder.fileno()
                    self._serve(child)
                    transport = child.spawn(self.reactor, descriptors)
                finally:
                    os.close(descriptors[0])
                child.process = transport.pid or 0
                self.children.append(child)
                join(self.reactor, child.link, Descriptor(ours.take(), ours.family))
        except (OSError, LinkError) as error:
            self.log.error("{name} cannot be started: {error}", name=child.name, error=str(error))
            if child in self.children:
                child.kill()
            else:
                self._again(role, child)

    def _serve(self, child: Child) -> None:
        link = child.link
        link.serve(HELLO, lambda hello: self._hello(child, hello))
        link.serve(EVENT, lambda text: globalLogPublisher(eventFromJSON(text)))
        # Without its link it is of no use, and must not go on with what others will be given.
        link.when_lost(child.kill)

    def _hello(self, child: Child, hello: Hello) -> bytes:
        ours = (VERSION, version("smtpreuse"))
        if (hello.version, hello.release) != ours:
            self.log.critical(
                "{name} is of version {theirs} (internal protocol {protocol}), this service of {ours} ({number}): the "
                "package was replaced while it runs; restart the service",
                name=child.name, theirs=hello.release, protocol=hello.version, ours=ours[1], number=VERSION,
            )  # fmt: skip
            raise LinkError("versions differ")
        # Its parts are there when it has the answer: what follows on the link finds them.
        self.reactor.callLater(0, self._welcome, child)
        return self._rules.rules(child.role)

    def _welcome(self, child: Child) -> None:
        if child.state is not State.STARTING or child.link.lost:
            return
        child.state = State.UP
        child.heard = child.busy = self.now()
        self.log.info("{name} is up: process={process}", name=child.name, process=child.process)
        for other in self.children:
            if other is not child and other.state is State.UP and _have_to_do(child.role, other.role):
                self._introduce(child, other)
        self._up(child)
        if child.role == TLSPROXY:
            self._later(self._rules.proxy_life, self._replace, child)
        self._relieve(child)
        if all(other.state is not State.STARTING for other in self.children):
            self._be_content()

    def _introduce(self, one: Child, other: Child) -> None:
        try:
            ends = pair()
        except OSError as error:
            self.log.error("{one} cannot meet {other}: {error}", one=one.name, other=other.name, error=str(error))
            return
        for child, met, end in ((one, other, ends[0]), (other, one, ends[1])):
            holds_tls = self._rules.layout.holds_tls(met.role)
            meeting = Meeting(role=met.role, number=met.number, process=met.process, holds_tls=holds_tls)
            Deferred.fromCoroutine(child.link.ask(MEET, meeting, end)).addErrback(self._not_met, child, met)

    def _not_met(self, failure: Failure, child: Child, met: Child) -> None:
        reason = failure.getErrorMessage()
        self.log.warn("{child} did not meet {met}: {reason}", child=child.name, met=met.name, reason=reason)

    def ended(self, child: Child, reason: Failure) -> None:
        """A child's process is gone."""
        state, child.state = child.state, State.GONE
        self.children.remove(child)
        child.link.end()
        if not (self._ending or state is State.RETIRING):
            how = reason.getErrorMessage()
            self.log.error("{name} ended: process={process} {how}", name=child.name, process=child.process, how=how)
        if state is not State.STARTING:
            self._down(child)
        if child.recorder is not None:
            child.recorder.close()
        if self._ending:
            if self._empty is not None and not self.children:
                self._empty.callback(None)
        elif state is not State.RETIRING:
            self._again(child.role, child)

    def _again(self, role: str, child: Child) -> None:
        if self.now() - child.started > _PROVED:
            self._failures[role] = 0
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures[role], 20))
        self._failures[role] += 1
        self._later(pause, self._spawn, role)

    # Beats, and the lives of TLS proxies

    def _beat(self) -> None:
        self._later(BEAT_EVERY, self._beat)
        now = self.now()
        for child in self.children:
            if now - child.heard > self._rules.watchdog:
                self.log.error("{name} does not answer, it is killed: process={process}", name=child.name,
                               process=child.process)  # fmt: skip
                child.kill()
            elif child.state in (State.UP, State.RETIRING):
                Deferred.fromCoroutine(self._ask_beat(child)).addErrback(lambda _: None)
        self._grow_and_shrink()

    async def _ask_beat(self, child: Child) -> None:
        load = await child.link.ask(BEAT, None, limit=self._rules.watchdog)
        child.heard = self.now()
        child.sessions = load.sessions
        if load.sessions:
            child.busy = child.heard

    def _grow_and_shrink(self) -> None:
        """One TLS proxy more where all are nearly full; one less where more than asked for have nothing to do."""
        proxies = [child for child in self.children if child.role == TLSPROXY and child.state is State.UP]
        starting = any(child.role == TLSPROXY and child.state is State.STARTING for child in self.children)
        if proxies and not starting and all(each.sessions >= _FULL * self._rules.proxy_limit for each in proxies):
            self._spawn(TLSPROXY)
        elif len(proxies) > self._rules.layout.tlsproxy and not starting:
            for child in proxies:
                if self.now() - child.busy > self._rules.proxy_idle:
                    self._retire(child)
                    return

    def _replace(self, child: Child) -> None:
        """Its time has come: a successor first."""
        if child.state is State.UP:
            self._spawn(TLSPROXY)

    def _relieve(self, successor: Child) -> None:
        """A TLS proxy is up: the one that it is to replace may go."""
        if successor.role != TLSPROXY:
            return
        for child in self.children:
            due = child.role == TLSPROXY and self.now() - child.started >= self._rules.proxy_life
            if due and child is not successor and child.state is State.UP:
                self._retire(child)

    def _retire(self, child: Child) -> None:
        child.state = State.RETIRING
        self.log.info("{name} retires: process={process}", name=child.name, process=child.process)
        child.link.tell(RETIRE, None)

    # The end

    async def _end(self, child: Child) -> None:
        try:
            await child.link.ask(END, None)
        except LinkError:
            child.kill()

    def _kill_all(self) -> None:
        for child in self.children:
            child.kill()

    def _later(self, delay: float, call: Callable[..., object], *args: object) -> None:
        self._timers = {timer for timer in self._timers if timer.active()}
        self._timers.add(self.reactor.callLater(delay, call, *args))


def _have_to_do(one: str, other: str) -> bool:
    """Whether two roles ever speak to each other; agents do, as each may hold the TLS of what another found."""
    return one != other or one == SMTP
