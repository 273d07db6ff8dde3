"""
Tells the service manager how we are: ready, reloading, stopping, alive, and a line for people (sd_notify(3)).

The protocol is a datagram of C{NAME=value} lines to the socket that the environment names. Without one, as when nobody
manages us, nothing is sent. A manager that cannot be told never stops mail.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

# So often is the line for people sent anew, in seconds; a manager may show it at any time.
STATUS_EVERY = 10.0
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Our word to the service manager."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, address: str, watchdog: float = 0.0) -> None:
        """
        @param address: a path, C{@} and a name for an abstract socket, or empty: nobody is to be told.
        @param watchdog: seconds within which the manager wants to hear that we are alive; 0 when it does not.
        """
        self._clock = clock
        self._address = b"\0" + os.fsencode(address[1:]) if address.startswith("@") else os.fsencode(address)
        self._watchdog = watchdog
        self._status: Callable[[], str] = str
        self._timers: dict[str, IDelayedCall] = {}
        self._failing = False

    @classmethod
    def from_environment(cls, clock: IReactorTime, environment: MutableMapping[str, str]) -> Notifier:
        """
        As the environment says; its variables are removed from it, so that processes we start do not speak for us.
        """
        values = {name: environment.pop(name, "") for name in _VARIABLES}
        interval, pid = values["WATCHDOG_USEC"], values["WATCHDOG_PID"]
        ours = pid in ("", str(os.getpid())) and interval.isascii() and interval.isdigit()
        return cls(clock, values["NOTIFY_SOCKET"], int(interval) / 1e6 if ours else 0.0)

    def ready(self, status: Callable[[], str]) -> None:
        """
        Mail is taken. From now on the manager hears that we are alive, whenever the reactor turns, and how we are.

        @param status: one line for people.
        """
        self._status = status
        self._send("READY=1", self._told())
        if self._address:
            self._every("status", STATUS_EVERY, self._told)
            if self._watchdog > 0:
                # Twice, as one may come late.
                self._every("alive", self._watchdog / 2, lambda: "WATCHDOG=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """A new configuration is taken up in here."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self._send("READY=1", self._told())

    def stopping(self, seconds: float) -> None:
        """
        The service ends.

        @param seconds: that it may take; the manager is asked to wait so long, should it have meant to wait for less.
        """
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", "STATUS=draining")
        timer = self._timers.pop("status", None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Say no more."""
        timers, self._timers = self._timers, {}
        for timer in timers.values():
            timer.cancel()

    def _told(self) -> str:
        return f"STATUS={' '.join(self._status().split())}"

    def _every(self, name: str, seconds: float, line: Callable[[], str]) -> None:
        def ring() -> None:
            self._timers[name] = self._clock.callLater(seconds, ring)
            self._send(line())

        self._timers[name] = self._clock.callLater(seconds, ring)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.setblocking(False)
                end.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failing:
                self._log.warn("service manager not told: {error} (said once)", error=str(error))
            self._failing = True
        else:
            self._failing = False
