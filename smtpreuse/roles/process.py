"""
A process of another role as its parent has it: how it is started, where it is in its life, and what is known of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import Enum

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import Link
from smtpreuse.roles.clock import passed
from smtpreuse.roles.reactor import IServiceReactor


class State(Enum):
    """Where a child is in its life."""

    STARTING = "starting"
    UP = "up"
    RETIRING = "retiring"
    GONE = "gone"


class Child(ProcessProtocol):
    """
    One process.

    @ivar process: its process id, 0 before it is started.
    @ivar sessions: as it said last.
    @ivar recorder: an agent's memory that outlives it.
    """

    def __init__(
        self, reactor: IServiceReactor, role: str, number: int, ended: Callable[[Child, Failure], object]
    ) -> None:
        """
        @param ended: told when it is gone.
        """
        self.role = role
        self.number = number
        self.process = 0
        self.state = State.STARTING
        self.started = self.heard = self.busy = reactor.seconds()
        self.sessions = 0
        self.recorder: Descriptor | None = None
        self.link = Link(reactor, self.name)
        self._ended = ended

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.role} {self.number}"

    def __repr__(self) -> str:
        return f"<Child {self.name} {self.state.value}>"

    def spawn(self, reactor: IServiceReactor, descriptors: dict[int, int]) -> IProcessTransport:
        """
        Start it.

        @param descriptors: ours, by the numbers that they are to have there.
        @raise OSError: when there can be no process.
        """
        # All processes go by one clock.
        offset = repr(reactor.seconds() - passed())
        command = [sys.executable, "-P", "-m", "smtpreuse.roles.child", self.role, str(self.number), offset]
        return reactor.spawnProcess(self, sys.executable, command, env=_environment(), childFDs=descriptors)

    def kill(self) -> None:
        """End it at once."""
        try:
            if self.transport is not None:
                IProcessTransport(self.transport).signalProcess("KILL")
        except ProcessExitedAlready:
            return

    def processEnded(self, reason: Failure) -> None:  # Twisted's name
        """It is gone, and nothing of it is left."""
        self._ended(self, reason)


def _environment() -> dict[str, str]:
    """
    That of this process, with the place of this package where the interpreter would not find it by itself; and without
    what systemd says to this one alone.
    """
    environment = dict(os.environ)
    for name in ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"):
        environment.pop(name, None)
    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.basename(place) != "site-packages":
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (place, environment.get("PYTHONPATH"))))
    return environment
