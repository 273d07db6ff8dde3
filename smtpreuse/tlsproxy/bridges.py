"""
The bridges of one process: which plaintext ends lead out of it, and why those that ended did.

Whoever holds the other end of a bridge sees the end of a stream, and nothing else; it asks here. Where it gets no
answer, the process is gone and not the peer.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import count

from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.model.reuse import Via
from smtpreuse.tlsproxy.plaintext import PlaintextEnd, ProxyReactor
from smtpreuse.tlsproxy.relay import bridge

# Who held the other end asks within moments. So many ends are remembered, some 150 octets each.
_REMEMBERED = 10_000


class Bridges:
    """
    Makes them, counts them, and remembers how they ended.
    """

    def __init__(self, reactor: ProxyReactor) -> None:
        self._reactor = reactor
        self._process = os.getpid()
        self._numbers = count(1)
        self._open: set[int] = set()
        self._emptied: Callable[[], object] = lambda: None
        self._ended: OrderedDict[int, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"<Bridges {len(self._open)} open>"

    def make(self, plaintext: PlaintextEnd) -> tuple[Descriptor, Via]:
        """
        A bridge to this plaintext.

        @raise OSError: when there is no descriptor left.
        """
        number = next(self._numbers)
        descriptor = bridge(self._reactor, plaintext, partial(self._over, number))
        if number not in self._ended:
            self._open.add(number)
        return descriptor, Via(self._process, number)

    def why(self, number: int) -> str:
        """Why this one ended; empty where it did not, or never was."""
        return self._ended.get(number, "")

    def when_empty(self, call: Callable[[], object]) -> None:
        """Call this each time the last one has ended."""
        self._emptied = call

    def _over(self, number: int, reason: str) -> None:
        if number in self._open:
            self._open.remove(number)
            if not self._open:
                self._emptied()
        self._ended[number] = reason
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
