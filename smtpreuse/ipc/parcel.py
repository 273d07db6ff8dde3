"""
Octets that are too many for one value of a verb: in an anonymous file of the memory, whose descriptor travels instead.

It knows nothing of what they mean. Source of the limit: AMP, whose values end at 65,535 octets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from smtpreuse.errors import LinkBroken
from smtpreuse.ipc.descriptor import Descriptor

# What goes as a value; a little below AMP's own limit, for the other values of its box.
INLINE = 60_000
# No batch, chain or list is as long: whoever sends more is broken, and the receiver keeps its memory.
MOST = 64 * 1024 * 1024
# Of writev(2): IOV_MAX is 1,024.
_VECTOR = 1000
# A file is of no address family.
NO_FAMILY = 0


def packed(pieces: Sequence[bytes]) -> Descriptor:
    """
    Put these octets, joined, into a file of the memory.

    @raise OSError: when there is no descriptor or no memory left.
    """
    descriptor = Descriptor(os.memfd_create("smtpreuse", os.MFD_CLOEXEC), NO_FAMILY)
    try:
        rest = [memoryview(piece) for piece in pieces if piece]
        while rest:
            written = os.writev(descriptor.fileno(), rest[:_VECTOR])
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = rest[0][written:]
    except OSError:
        descriptor.close()
        raise
    return descriptor


def unpacked(descriptor: Descriptor) -> bytes:
    """
    Take the octets out; the descriptor is closed.

    @raise LinkBroken: when they cannot be read, or are too many.
    """
    with descriptor:
        try:
            size = os.fstat(descriptor.fileno()).st_size
            if size > MOST:
                raise LinkBroken(f"a value of {size} octets came (allowed: at most {MOST})")
            octets = os.pread(descriptor.fileno(), size, 0)
        except OSError as error:
            raise LinkBroken(f"a value that came cannot be read ({error.strerror})") from error
    if len(octets) != size:
        raise LinkBroken(f"a value of {size} octets came, of which {len(octets)} can be read")
    return octets
