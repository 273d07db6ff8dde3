"""
The control socket's place in the file system: whose it is, and who may remove what is there.

It knows nothing of what is said over the socket. A path is an administrator's word and may be a wrong one, so nothing
is removed but a socket that nobody listens on.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.tcp import Port
from twisted.internet.unix import Port as UNIXPort

from smtpreuse.errors import StartError

# Those of the service's group may use its tools: what they ask is answered without a further question.
MODE = 0o660


def clear(path: str) -> None:
    """
    Make room for a socket: remove one that was left behind by a service that is gone.

    @raise StartError: when something else is there, or somebody listens.
    """
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"cannot be looked at ({error.strerror}): {path}") from error
    if not stat.S_ISSOCK(there.st_mode):
        raise StartError(f"something is there that is no socket, and is not removed: {path}")
    fault = _answer(path)
    if isinstance(fault, ConnectionRefusedError):
        os.unlink(path)
    elif fault is None:
        raise StartError(f"another service listens there: {path}")
    elif not isinstance(fault, FileNotFoundError):
        raise StartError(f"a socket is there of which nobody knows whose it is ({fault.strerror}): {path}")


def _answer(path: str) -> OSError | None:
    """Why a connection to this socket fails; L{None} where somebody takes it, or is too busy to take it now."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return None
        except OSError as error:
            return error
    return None


class ControlPort(UNIXPort):
    """
    Listens on a path, and removes it at the end if it is still the same socket: somebody may have put another there.
    """

    _made: tuple[int, int] | None = None

    def __init__(self, path: str, factory: IProtocolFactory, reactor: object) -> None:
        super().__init__(os.fsencode(path), factory, mode=MODE, reactor=reactor)

    def startListening(self) -> None:  # noqa: N802  # Twisted's name
        """
        Bind and listen.

        @raise CannotListenError: when the path cannot be had.
        """
        super().startListening()  # type: ignore[no-untyped-call]  # not annotated in Twisted
        self._made = self._there()

    def connectionLost(self, reason: object) -> None:
        """It is over."""
        self.remove()
        # Not that of the UNIX port: it removes whatever is there.
        Port.connectionLost(self, reason)  # type: ignore[no-untyped-call]  # not annotated in Twisted

    def remove(self) -> None:
        """Remove the path, if it is ours."""
        if self._made is not None and self._there() == self._made:
            with suppress(OSError):
                os.unlink(self._bindPath)

    def _there(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._bindPath)
        except OSError:
            return None
        return found.st_dev, found.st_ino
