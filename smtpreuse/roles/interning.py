"""
One copy of what many sessions at rest have in common: keys, sites, capabilities, and above all certificates.

Every session that comes from another process brings its own copies; a chain alone has some thousand octets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeVar

from attrs import evolve

from smtpreuse.ipc.verbs import Saved
from smtpreuse.model.tlsfacts import TLSResult

T = TypeVar("T", bound=Hashable)
# Values; of more, the one that was met longest ago is forgotten, which costs nothing but memory.
_MOST = 10_000


class Interning:
    """
    Remembers values, to give out the same object for equal ones.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, Hashable] = OrderedDict()

    def like(self, saved: Saved) -> Saved:
        """The same value, made of parts that were met before."""
        facts = saved.facts
        tls = facts.tls
        if tls is not None:
            tls = self._same(self._chained(tls))
        return Saved(
            destination=self._same(saved.destination), site=self._same(saved.site), key=self._same(saved.key),
            facts=evolve(facts, tls=tls, host=self._same(facts.host), capabilities=self._same(facts.capabilities)),
        )  # fmt: skip

    def _chained(self, tls: TLSResult) -> TLSResult:
        return evolve(tls, chain=tuple(self._same(certificate) for certificate in tls.chain))

    def _same(self, value: T) -> T:
        known = self._known.get(value)
        if known is None:
            self._known[value] = value
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
            return value
        self._known.move_to_end(value)
        return known  # type: ignore[return-value]  # what is known under a value is equal to it
