"""
A domain name system that a test fills.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpreuse.errors import NoSuchName, NoSuchRecords
from smtpreuse.interfaces import IResolver
from smtpreuse.model.records import AddressAnswer, MXAnswer, MXRecord


@implementer(IResolver)
class FakeResolver:
    """
    @ivar domains: MX records of each domain as (preference, host), or the error; those that are missing do not exist.
    @ivar hosts: addresses of each host, of both families, or the error; those that are missing do not exist.
    @ivar good_until: of every answer, unless C{expiries} has one for the name.
    @ivar asked: every question.
    @ivar gate: what answers to MX questions wait for, if anything.
    @ivar gates: what answers for the addresses of a host wait for, by its name.
    """

    def __init__(self) -> None:
        self.domains: dict[str, Sequence[tuple[int, str]] | Exception] = {}
        self.hosts: dict[str, Sequence[str] | Exception] = {}
        self.good_until = 1000.0
        self.expiries: dict[str, float] = {}
        self.asked: list[str] = []
        self.gate: Deferred[None] | None = None
        self.gates: dict[str, Deferred[None]] = {}

    async def mx(self, domain: str) -> MXAnswer:
        """See L{IResolver.mx}."""
        self.asked.append(f"MX {domain}")
        if self.gate is not None:
            await self.gate
        found = self.domains.get(domain, NoSuchName(f"{domain} not found"))
        if isinstance(found, Exception):
            raise found
        records = tuple(MXRecord(preference, host) for preference, host in found)
        return MXAnswer(records=records, good_until=self.expiries.get(domain, self.good_until))

    async def addresses(self, host: str, ipv6: bool) -> AddressAnswer:
        """See L{IResolver.addresses}."""
        self.asked.append(f"{'AAAA' if ipv6 else 'A'} {host}")
        gate = self.gates.get(host)
        if gate is not None:
            waiting: Deferred[None] = Deferred()
            gate.chainDeferred(waiting)
            await waiting
        found = self.hosts.get(host, NoSuchName(f"{host} not found"))
        if isinstance(found, Exception):
            raise found
        addresses = tuple(address for address in found if (":" in address) == ipv6)
        if not addresses:
            raise NoSuchRecords(f"{host} has none")
        return AddressAnswer(addresses=addresses, good_until=self.expiries.get(host, self.good_until))
