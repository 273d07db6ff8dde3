"""
Ends a service with whoever started it: when standard input, a pipe from there, comes to its end.

It holds for every end of the other process, SIGKILL too, and needs nothing that only one system has.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from zope.interface import implementer

# What somebody writes has no meaning.
_PIECE = 4096


@implementer(IReadDescriptor)
class Tether:
    """Watches standard input."""

    def __init__(self, reactor: IReactorFDSet, ended: Callable[[], None]) -> None:
        """
        @param ended: called once, when there is nobody at the other end any more.
        """
        self._reactor = reactor
        self._ended = ended
        self._over = False

    def watch(self) -> None:
        """Begin."""
        self._reactor.addReader(self)

    def fileno(self) -> int:
        """Of standard input."""
        return 0

    def logPrefix(self) -> str:  # noqa: N802  # Twisted's name
        """For the reactor's own log."""
        return "tether"

    def doRead(self) -> None:  # noqa: N802  # Twisted's name
        """Something came, or the end."""
        try:
            octets = os.read(0, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self.connectionLost(None)

    def connectionLost(self, reason: object) -> None:
        """It is over."""
        if not self._over:
            self._over = True
            self._reactor.removeReader(self)
            self._ended()
