"""
A flight recorder: what an agent was about when it died, in memory that it shares with the main process.

A request is entered when its transaction begins, and again before its final dot is sent. Each entry costs a fraction of
a microsecond, and what was entered outlives the process, however that ends. The oldest entries are overwritten.
"""

from __future__ import annotations

import mmap
import os
import struct

from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.parcel import NO_FAMILY

# So many are kept: some seconds of the fastest agent's work, where reports take some milliseconds.
ENTRIES = 16_384
_ENTRY = struct.Struct("<Q")
_SIZE = ENTRIES * _ENTRY.size


class FlightRecorder:
    """
    One process writes, another reads when that one is gone.
    """

    def __init__(self, descriptor: Descriptor) -> None:
        """
        @param descriptor: as L{made} gives it, or a copy; stays the caller's.
        @raise OSError: when it cannot be mapped.
        """
        self._page = mmap.mmap(descriptor.fileno(), _SIZE)
        self._next = 0

    def begun(self, ticket: int) -> None:
        """The transaction of this request begins."""
        self._enter(ticket << 1)

    def dotted(self, ticket: int) -> None:
        """The final dot of this request is about to leave."""
        self._enter(ticket << 1 | 1)

    def entries(self) -> tuple[set[int], set[int]]:
        """
        @return: the tickets that were begun, and those of them whose final dot may have left.
        """
        numbers = {number for (number,) in _ENTRY.iter_unpack(self._page[:]) if number}
        return {number >> 1 for number in numbers}, {number >> 1 for number in numbers if number & 1}

    def close(self) -> None:
        """Let go of the memory."""
        self._page.close()

    def _enter(self, number: int) -> None:
        _ENTRY.pack_into(self._page, self._next * _ENTRY.size, number)
        self._next = (self._next + 1) % ENTRIES


def made() -> Descriptor:
    """
    Memory for one recorder.

    @raise OSError: when there is none left.
    """
    descriptor = Descriptor(os.memfd_create("smtpreuse-recorder", os.MFD_CLOEXEC), NO_FAMILY)
    try:
        os.ftruncate(descriptor.fileno(), _SIZE)
    except OSError:
        descriptor.close()
        raise
    return descriptor
