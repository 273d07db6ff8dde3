"""
The life of the service: opens, says that it is ready, drains, and closes.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from twisted.application.service import Service
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from smtpreuse.config.settings import Settings
from smtpreuse.errors import ConfigurationError, ServiceEnding, SmtpreuseError, StartError
from smtpreuse.interfaces import IServiceControl
from smtpreuse.model.nexthop import Endpoint
from smtpreuse.roles.assembly import House, assemble
from smtpreuse.roles.clock import SteadyClock
from smtpreuse.roles.configuration import identity_of
from smtpreuse.roles.controlport import ControlPort, clear
from smtpreuse.roles.descriptors import allow_sessions
from smtpreuse.roles.doors import Doors, place, stopped
from smtpreuse.roles.notify import Notifier
from smtpreuse.roles.owner import Owner
from smtpreuse.roles.reactor import IServiceReactor
from smtpreuse.roles.reload import Reloader
from smtpreuse.roles.tether import Tether

# How long outcomes may still take to get to the disk when the drain is over, in seconds: many commits, or none at all.
_LAST_RECORDS = 2.0
# Beyond the drain, in seconds: for threads to end and the database to be closed on a slow disk.
_CLOSING = 10.0

# Part of a start: when it is done, and then what failed.
_Tried = tuple[Deferred[None], list[BaseException]]
# How long mail is not taken because other processes are not up yet, in seconds: one takes half of one.
_FIRST_CHILDREN = 5.0
# How long the other processes may take to take their leave, in seconds.
_LAST_CHILDREN = 2.0


@implementer(IServiceControl)
class DeliveryService(Service):
    """
    The service as twistd runs it.
    """

    name = "smtpreuse"
    log = Logger()

    def __init__(
        self, settings: Settings, read: Callable[[], Settings], *, daemonized: bool = False, tethered: bool = False,
        owner: Owner | None = None,
    ) -> None:
        """
        @param read: reads the settings again.
        @param daemonized: whether twistd puts us into the background, where standard error leads nowhere.
        @param tethered: whether to end when standard input does.
        @param owner: who we are to be after C{privilegedStartService}, when twistd makes us somebody else.
        """
        self._settings = settings
        self._daemonized = daemonized
        self._tethered = tethered
        alsoProvides(global_reactor, IServiceReactor)
        self._reactor = IServiceReactor(global_reactor)
        self._read = read
        self._house: House | None = None
        self._reloader: Reloader | None = None
        self._owner = owner
        self._doors = Doors()
        self._bound: _Tried | None = None
        self._control: ControlPort | None = None
        self._clock = SteadyClock.continued(self._clock_file)
        self._notifier = Notifier.from_environment(self._reactor, os.environ)

    @property
    def _clock_file(self) -> str:
        return os.path.join(self._settings.queue_directory, "clock")

    def privilegedStartService(self) -> None:
        """What only root can do, where that is who we still are: bind ports, and make the places we write to."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]  # not annotated in Twisted
        self._clock.drive(self._reactor)
        if self._owner is not None:
            self._bound = self._try(self._bind_early(self._owner))

    def startService(self) -> None:
        """Open the queue, listen, and say so. What cannot be opened ends the process with one line that says why."""
        super().startService()  # type: ignore[no-untyped-call]  # not annotated in Twisted
        allow_sessions(self._settings.session_limit)
        try:
            identity = identity_of(self._settings)
            with self._blamed("maillog_file"):
                self._house = house = assemble(self._settings, self._reactor, self, identity)
        except StartError as problem:
            self._refuse(problem)
        self._reloader = Reloader(house, self._settings, self._read, self._reactor, lambda: self._house is None)
        house.pool.start()
        opening = self._try(self._open(house))
        # Not before the reactor has its own signal handlers: from "ready" on every signal is to mean what it should.
        self._reactor.callWhenRunning(self._running, house, opening)

    def _try(self, work: Coroutine[Deferred[None], object, None]) -> _Tried:
        """Part of a start. What fails at once ends it."""
        problems: list[BaseException] = []

        def failed(failure: Failure) -> None:
            assert failure.value is not None
            problems.append(failure.value)

        done = Deferred.fromCoroutine(work).addErrback(failed)
        if problems:
            self._refuse(problems[0])
        return done, problems

    async def _bind_early(self, owner: Owner) -> None:
        # Of both the interpreter's and the environment's.
        owner.check_program(os.__file__, __file__)
        with self._blamed("queue_directory"):
            owner.directory(self._settings.queue_directory)
        if self._settings.maillog_file:
            with self._blamed("maillog_file"):
                owner.file(self._settings.maillog_file)
        await self._bind()

    async def _bind(self) -> None:
        for text in self._settings.listen:
            with self._blamed("listen", text):
                await self._doors.bind(text)

    async def _open(self, house: House) -> None:
        """Before the reactor runs, so that whoever starts us hears what is wrong; nobody is served until it does."""
        with self._blamed("queue_directory"):
            house.spool.open()
        self._remember_clock()
        with self._blamed("control_socket"):
            clear(self._settings.control_socket)
            self._control = ControlPort(self._settings.control_socket, house.control, self._reactor)
            self._control.startListening()
        if self._bound is None:
            # Not earlier: of two services with one configuration, the second is to hear of the first one's queue.
            await self._bind()
        else:
            await _succeeded(self._bound)
        self._doors.open(house.smtpd)

    def _remember_clock(self) -> None:
        try:
            self._clock.remember(self._clock_file)
        except OSError as error:
            self.log.warn("clock not remembered: file={path} {error}", path=self._clock_file, error=str(error))

    @contextmanager
    def _blamed(self, name: str, value: str = "") -> Iterator[None]:
        """What goes wrong in here is told with the parameter that asked for it."""
        try:
            yield
        except (OSError, OverflowError, SmtpreuseError, CannotListenError) as error:
            what = f"{error}: {value}" if value else str(error)
            raise StartError(f"{self._settings.source(name)}: {name}: {what}") from error

    def _refuse(self, problem: BaseException) -> NoReturn:
        """There will be no service: say why, and leave nothing behind."""
        self.log.critical("smtpreuse cannot start: {reason}", reason=str(problem))
        self._doors.forget()
        if self._control is not None:
            self._control.remove()
        if self._daemonized or not isinstance(problem, StartError):
            # twistd's parent process waits to hear of an exception; of an exit it would not hear, and wait for ever.
            raise problem
        print(f"smtpreuse cannot start: {problem}", file=sys.__stderr__, flush=True)
        raise SystemExit(1)

    def _running(self, house: House, opening: _Tried) -> None:
        # twistd ends by the signal that stopped its reactor; a service that was told to end, and did, exits with 0.
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.callFromThread(self._terminated))
        if self._tethered:
            Tether(self._reactor, self._terminated).watch()
        Deferred.fromCoroutine(self._begin(house, opening)).addErrback(self._cannot)

    def _terminated(self) -> None:
        with suppress(ReactorNotRunning):  # it was told so before
            self._reactor.stop()

    async def _begin(self, house: House, opening: _Tried) -> None:
        await _succeeded(opening)
        hosts = self._doors.addresses()
        house.router.listen_on(Endpoint(at.host, at.port) for at in hosts if isinstance(at, IPv4Address | IPv6Address))
        if house.supervisor is not None:
            house.supervisor.start()
            await house.supervisor.complete(_FIRST_CHILDREN)
        house.dispatcher.start()
        signal.signal(signal.SIGUSR1, lambda *_: self._reactor.callFromThread(house.maillog.reopen))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hung_up))
        places = ", ".join(map(place, hosts))
        self.log.info("ready: {places}", places=places)
        try:
            os.write(1, f"ready: listening on {places}\n".encode())
        except OSError as error:
            # Whoever was to read it is gone; mail comes in all the same.
            self.log.warn("ready, but standard output does not take it: {error}", error=str(error))
        self._notifier.ready(lambda: _described(house))

    def _cannot(self, failure: Failure) -> None:
        """It turned out late: an endpoint took its time, or there is a fault in here."""
        if failure.check(StartError) is None:  # type: ignore[no-untyped-call]  # not annotated in Twisted
            self.log.failure("start failed", failure=failure)
        reason = f"smtpreuse cannot start: {failure.getErrorMessage()}"
        self.log.critical("{reason}", reason=reason)
        print(reason, file=sys.__stderr__, flush=True)
        # twistd knows no other way to end its reactor with a status than a signal.
        atexit.register(_fail)
        self._terminated()

    # IServiceControl

    async def reload(self) -> list[str]:
        """See L{IServiceControl}."""
        assert self._reloader is not None, "nobody asks before the start"
        if self._house is None:
            # It refuses, and says so; the manager knows that we end.
            return await self._reloader.reload()
        with self._notifier.reloading():
            return await self._reloader.reload()

    def drain(self) -> float:
        """See L{IServiceControl}."""
        # Not at once: whoever asked is to hear of it first.
        self._reactor.callLater(0, self._terminated)
        return self._in_force.shutdown_timeout

    @property
    def _in_force(self) -> Settings:
        return self._reloader.settings if self._reloader is not None else self._settings

    def _hung_up(self) -> None:
        Deferred.fromCoroutine(self._obey()).addErrback(
            lambda failure: self.log.failure("reload failed", failure=failure)
        )

    async def _obey(self) -> None:
        with suppress(ConfigurationError, ServiceEnding):  # they were logged
            await self.reload()

    async def _close(self, house: House) -> None:
        limit = self._in_force.shutdown_timeout
        self._notifier.stopping(limit + _LAST_RECORDS + _CLOSING)
        await self._doors.close()
        delivered = self._in_time(house.dispatcher.drain(), limit, "not all transactions ended in time")
        await house.smtpd.drain(limit)
        await delivered
        # Their replies can be waited for no longer. What they carried is known by that, and they say it at once.
        house.agent.abort()
        # Also what was reported by then is to be on disk: it would be delivered again.
        await self._in_time(house.dispatcher.settled(), _LAST_RECORDS, "not all outcomes were recorded")
        house.dispatcher.leave()
        if house.cache is not None:
            house.cache.close_all()
        if house.supervisor is not None:
            await house.supervisor.stop(_LAST_CHILDREN)
        house.router.close()
        await house.spool.close()
        house.pool.stop()
        house.maillog.close()
        self._notifier.close()
        # The last of all: when it is gone nothing of the service is left, and another one may begin.
        if self._control is not None:
            await stopped(self._control)

    def _in_time(self, work: Coroutine[Deferred[None], object, None], limit: float, otherwise: str) -> Deferred[None]:
        done = Deferred.fromCoroutine(work).addTimeout(limit, self._reactor)
        return done.addErrback(
            lambda failure: self.log.warn("{what}: {reason}", what=otherwise, reason=failure.getErrorMessage())
        )

    def stopService(self) -> Deferred[None] | None:
        """Drain: take nothing more, let what is under way end, write all down."""
        super().stopService()  # type: ignore[no-untyped-call]  # not annotated in Twisted
        house, self._house = self._house, None
        return Deferred.fromCoroutine(self._close(house)) if house is not None else None


async def _succeeded(tried: _Tried) -> None:
    done, problems = tried
    await done
    if problems:
        raise problems[0]


def _described(house: House) -> str:
    """How the service is, in one line for people."""
    trouble = house.dispatcher.trouble()
    counters = house.dispatcher.counters()
    state = f"takes no mail: {trouble}" if trouble else f"{len(house.dispatcher.active())} messages under way"
    since = f"{counters.delivered} delivered, {counters.deferred} deferred, {counters.bounced} bounced"
    return f"{state}; since the start {since}"


def _fail() -> None:
    """Status 1, at the very end of the process."""
    sys.stdout.flush()
    os._exit(1)
