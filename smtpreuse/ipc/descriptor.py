"""
One owner of one file descriptor.

It knows nothing of what the descriptor leads to. Taking it out ends the ownership here; using what was taken or closed
is an error and not an accident of numbers.
"""

# ruff: noqa: N802  (names that Twisted has chosen)

from __future__ import annotations

import os
import socket
import warnings
from types import TracebackType
from typing import Protocol

from smtpreuse.errors import DescriptorError, SessionLost


class _SocketTransport(Protocol):
    """What we need of a Twisted stream transport."""

    socket: socket.socket

    @property
    def dataBuffer(self) -> bytes: ...

    def doWrite(self) -> object: ...

    def stopReading(self) -> None: ...

    def stopWriting(self) -> None: ...


class Descriptor:
    """
    Owns a descriptor until it is taken or closed.

    @ivar family: address family of the socket, C{socket.AF_INET} and its like.
    """

    def __init__(self, number: int, family: int) -> None:
        self._number = number
        self.family = family

    @classmethod
    def of(cls, sock: socket.socket) -> Descriptor:
        """Take a socket object over."""
        family = sock.family
        return cls(sock.detach(), family)

    @property
    def open(self) -> bool:
        """Whether it is still owned here."""
        return self._number >= 0

    def fileno(self) -> int:
        """
        The number, for looking; ownership stays.

        @raise DescriptorError: when it was taken or closed.
        """
        if self._number < 0:
            raise DescriptorError("descriptor was used after it was taken or closed")
        return self._number

    def take(self) -> int:
        """
        Hand ownership over to the caller.

        @raise DescriptorError: when it was taken or closed before.
        """
        number = self.fileno()
        self._number = -1
        return number

    def copy(self) -> Descriptor:
        """
        Another descriptor for the same thing, with an owner of its own.

        @raise DescriptorError: when it was taken or closed.
        @raise OSError: when there is no descriptor left.
        """
        return Descriptor(os.dup(self.fileno()), self.family)

    def close(self) -> None:
        """Close it, if it is still owned here."""
        if self._number >= 0:
            os.close(self.take())

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._number >= 0:
            warnings.warn(f"{self!r} was neither taken nor closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<Descriptor {self._number if self.open else 'gone'}>"


def taken_from(transport: _SocketTransport) -> Descriptor:
    """
    Take the socket out of a Twisted transport without shutting it down: C{loseConnection} would call C{shutdown(2)},
    which ends the connection for every later holder. The protocol gets no C{connectionLost} from then on.

    @raise SessionLost: when something that was written would be lost; the transport stays as it is then.
    """
    # A transport writes in the next turn of the reactor only: what was written in this one goes now.
    if transport.doWrite() is not None:
        raise SessionLost("lost connection")
    if transport.dataBuffer:
        raise SessionLost("what was written has not left yet")
    transport.stopReading()
    transport.stopWriting()
    return Descriptor.of(transport.socket)


def mark(descriptor: Descriptor) -> bytes:
    """What L{proved} knows a descriptor by in another process."""
    return b"%d:%d" % (os.fstat(descriptor.fileno()).st_ino, descriptor.family)


def proved(numbers: list[int], marks: list[bytes]) -> list[Descriptor]:
    """
    Take over descriptors that came from another process, where each is the one that was sent: the kernel drops those
    for which there is no room, and the next one would be taken for it.

    @param numbers: what came; closed where they are not what was sent.
    @param marks: L{mark} of each, as it was sent.
    @raise DescriptorError: when they are not the same.
    """
    descriptors = [Descriptor(number, socket.AF_UNSPEC) for number in numbers]
    for descriptor, expected in zip(descriptors, marks, strict=False):
        family = expected.rpartition(b":")[2]
        descriptor.family = int(family) if family.isdigit() else socket.AF_UNSPEC
    if [mark(descriptor) for descriptor in descriptors] != marks:
        for descriptor in descriptors:
            descriptor.close()
        raise DescriptorError("sends descriptors that did not come as they were sent")
    return descriptors
