"""
The life of the service: opens, says that it is ready, drains, and closes.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress

from twisted.application.service import Service
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from smtpreuse.config.settings import Settings
from smtpreuse.errors import SpoolError, StartError
from smtpreuse.roles.assembly import House, IServiceReactor, assemble
from smtpreuse.roles.controlport import ControlPort, clear
from smtpreuse.roles.descriptors import allow_sessions

# How long outcomes may still take to get to the disk when the drain is over, in seconds: many commits, or none at all.
_LAST_RECORDS = 2.0


class DeliveryService(Service):
    """
    The service as twistd runs it.
    """

    name = "smtpreuse"
    log = Logger()

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        alsoProvides(global_reactor, IServiceReactor)
        self._reactor = IServiceReactor(global_reactor)
        self._house: House | None = None
        self._ports: list[IListeningPort] = []
        self._control: ControlPort | None = None

    def startService(self) -> None:
        """Open the queue, listen, and say so. What cannot be opened ends the process with one line that says why."""
        super().startService()  # type: ignore[no-untyped-call]  # not annotated in Twisted
        allow_sessions(self._settings.session_limit)
        try:
            self._house = house = assemble(self._settings, self._reactor)
            house.pool.start()
            house.spool.open()
        except (OSError, SpoolError) as error:
            _end(f"smtpreuse cannot start: {error}")
        # Not before the reactor has its own signal handlers: from "ready" on every signal is to mean what it should.
        self._reactor.callWhenRunning(self._running, house)

    def _running(self, house: House) -> None:
        # twistd ends by the signal that stopped its reactor; a service that was told to end, and did, exits with 0.
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.callFromThread(self._terminated))
        Deferred.fromCoroutine(self._open(house)).addErrback(self._cannot)

    def _terminated(self) -> None:
        with suppress(ReactorNotRunning):  # it was told so before
            self._reactor.stop()

    async def _open(self, house: House) -> None:
        clear(self._settings.control_socket)
        self._control = ControlPort(self._settings.control_socket, house.control, self._reactor)
        self._control.startListening()
        house.dispatcher.start()
        for text in self._settings.listen:
            self._ports.append(await serverFromString(self._reactor, text).listen(house.smtpd))
        signal.signal(signal.SIGUSR1, lambda *_: self._reactor.callFromThread(house.maillog.reopen))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hung_up))
        places = ", ".join(_place(port.getHost()) for port in self._ports)
        self.log.info("ready: {places}", places=places)
        os.write(1, f"ready: listening on {places}\n".encode())

    def _cannot(self, failure: Failure) -> None:
        if not failure.check(CannotListenError, OSError, StartError):  # type: ignore[no-untyped-call]  # not annotated in Twisted
            self.log.failure("cannot listen", failure=failure)
        reason = failure.getErrorMessage()
        os.write(2, f"smtpreuse cannot start: {reason}\n".encode())
        # twistd knows no other way to end its reactor with a status than a signal.
        atexit.register(_fail)
        self._terminated()

    def _hung_up(self) -> None:
        self.log.warn("SIGHUP: the configuration is not read again while the service runs; restart it")

    async def _close(self, house: House) -> None:
        for port in self._ports:
            await _stopped(port)
        limit = self._settings.shutdown_timeout
        delivered = self._in_time(house.dispatcher.drain(), limit, "not all transactions ended in time")
        await house.smtpd.drain(limit)
        await delivered
        # Also what was reported by then is to be on disk: it would be delivered again.
        await self._in_time(house.dispatcher.settled(), _LAST_RECORDS, "not all outcomes were recorded")
        house.cache.close_all()
        if self._control is not None:
            await _stopped(self._control)
        house.router.close()
        await house.spool.close()
        house.pool.stop()
        house.maillog.close()

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


async def _stopped(port: IListeningPort) -> None:
    stopped = port.stopListening()
    if stopped is not None:
        await stopped


def _place(address: IAddress) -> str:
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return os.fsdecode(address.name or b"") if isinstance(address, UNIXAddress) else str(address)


def _fail() -> None:
    """Status 1, at the very end of the process."""
    sys.stdout.flush()
    os._exit(1)


def _end(text: str) -> None:
    """One line, status 1, no traceback."""
    print(text, file=sys.__stderr__, flush=True)
    raise SystemExit(1)

