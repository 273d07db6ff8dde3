"""
The life of the service: opens, says that it is ready, drains, and closes.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from twisted.application.service import Service
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from smtpreuse.config.settings import Settings
from smtpreuse.errors import SpoolError
from smtpreuse.roles.assembly import House, IServiceReactor, assemble


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
        self._control: IListeningPort | None = None

    def startService(self) -> None:
        """Open the queue, listen, and say so. What cannot be opened ends the process with one line that says why."""
        super().startService()  # type: ignore[no-untyped-call]  # not annotated in Twisted
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
        path = self._settings.control_socket
        if os.path.exists(path):
            # The queue's lock is ours, so whoever left it there is gone.
            os.unlink(path)
        self._control = await UNIXServerEndpoint(self._reactor, path, mode=0o660).listen(house.control)
        house.dispatcher.start()
        for text in self._settings.listen:
            self._ports.append(await serverFromString(self._reactor, text).listen(house.smtpd))
        # twistd ends by raising the signal again that stopped it, so that a drain would look like a death by SIGTERM: here
        # it is the ordinary way to stop, with status 0. Its own handlers are set when the reactor starts.
        self._reactor.callWhenRunning(signal.signal, signal.SIGTERM, self._told_to_stop)
        signal.signal(signal.SIGUSR1, lambda *_: self._reactor.callFromThread(house.maillog.reopen))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hung_up))
        places = ", ".join(_place(port.getHost()) for port in self._ports)
        self.log.info("ready: {places}", places=places)
        os.write(1, f"ready: listening on {places}\n".encode())

    def _cannot(self, failure: Failure) -> None:
        self.log.failure("cannot listen", failure=failure)
        reason = failure.getErrorMessage()
        os.write(2, f"smtpreuse cannot start: {reason}\n".encode())
        self._reactor.callWhenRunning(self._reactor.stop)

    def _told_to_stop(self, *_: object) -> None:
        self._reactor.callFromThread(self._reactor.stop)

    def _hung_up(self) -> None:
        self.log.warn("SIGHUP: the configuration is not read again while the service runs; restart it")

    async def _close(self, house: House) -> None:
        for port in self._ports:
            await _stopped(port)
        limit = self._settings.shutdown_timeout
        drained = Deferred.fromCoroutine(house.smtpd.drain(limit))
        await drained
        delivered = Deferred.fromCoroutine(house.dispatcher.drain())
        delivered.addTimeout(limit, self._reactor)
        try:
            await delivered
        except Exception as error:
            self.log.warn("not all transactions ended in time: {error!r}", error=error)
        house.cache.close_all()
        if self._control is not None:
            await _stopped(self._control)
        house.router.close()
        await house.spool.close()
        house.pool.stop()
        house.maillog.close()

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


def _end(text: str) -> None:
    """One line, status 1, no traceback."""
    print(text, file=sys.__stderr__, flush=True)
    raise SystemExit(1)

