"""
From the names of mail hosts to their addresses: as many as will be tried, in the time that there is.

Knows neither MX records nor who we are. Source: Postfix's C{smtp_addr_one} and C{smtp_addr_list} (C{smtp_addr.c}).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults

from smtpreuse.errors import DNSError, NoSuchRecords
from smtpreuse.interfaces import IResolver
from smtpreuse.model.nexthop import parsed_address
from smtpreuse.model.records import AddressAnswer

# So many hosts are looked up at a time; each question takes a socket.
_TOGETHER = 5
# Seconds after which no host of a nexthop is looked up any more: with the 10 that a resolver takes for an answer, a
# nexthop takes 30. Whoever names a hundred hosts whose name servers are silent would stop all routing otherwise.
_LAST_LOOK_UP = 20.0


@frozen(kw_only=True)
class Host:
    """
    What is known of one host: its addresses, or why there are none.

    @ivar good_until: UNIX time at which its addresses expire.
    """

    name: str
    preference: int = 0
    addresses: tuple[str, ...] = ()
    good_until: float = float("inf")
    error: DNSError | None = None


class HostSearch:
    """Looks up the hosts of one nexthop, the preferred ones first."""

    def __init__(
        self, resolver: IResolver, families: Sequence[bool], limit: int, seconds: Callable[[], float]
    ) -> None:
        """
        @param families: of the addresses that are wanted: whether IPv6.
        @param limit: how many addresses will be tried.
        @param seconds: the UNIX time; that of the search begins now.
        """
        self._resolver = resolver
        self._families = families
        self._limit = limit
        self._seconds = seconds
        self._until = seconds() + _LAST_LOOK_UP
        self._found: list[str] = []

    async def equals(self, names: Sequence[str], preference: int, every: bool) -> list[Host]:
        """
        Look up hosts of one preference, a few at a time, until there are addresses enough or the time is over: then the
        others count as not found for now.

        @param every: whether each must be known.
        """
        hosts: list[Host] = []
        while len(hosts) < len(names) and (every or self.missing()):
            left = names[len(hosts) :]
            if self._seconds() >= self._until:
                return hosts + [_late(name, preference) for name in left]
            together = left[: _TOGETHER if every else self.missing()]
            answers = await gatherResults(
                [Deferred.fromCoroutine(self._host(name, preference)) for name in together], consumeErrors=True
            )
            hosts += answers
            self._found += [address for host in answers for address in host.addresses]
        return hosts

    def missing(self) -> int:
        """
        How many more hosts to look up at once for as many addresses as will be tried, and IPv4 ones among them: where
        IPv6 does not get through, nothing else would be left. A host is taken to have an address of each family.
        """
        missing = self._limit - len(self._found)
        if missing > 0:
            return min(_TOGETHER, -(-missing // len(self._families)))
        return int(False in self._families and all(":" in address for address in self._found))

    async def _host(self, name: str, preference: int) -> Host:
        """The addresses of one host in all families at once."""
        address = numeric(name)
        if address is not None:
            if (":" in address) in self._families:
                return Host(name=address, preference=preference, addresses=(address,))
            return Host(name=address, preference=preference, error=NoSuchRecords(unusable(address)))
        asked = [Deferred.fromCoroutine(self._addresses(name, ipv6)) for ipv6 in self._families]
        answers = await gatherResults(asked, consumeErrors=True)
        found = [answer for answer in answers if isinstance(answer, AddressAnswer)]
        if found:
            return Host(
                name=name,
                preference=preference,
                addresses=tuple(address for answer in found for address in answer.addresses),
                good_until=min(answer.good_until for answer in found),
            )
        errors = [answer for answer in answers if isinstance(answer, DNSError)]
        error = next((error for error in errors if error.temporary), errors[0])
        return Host(name=name, preference=preference, error=error)

    async def _addresses(self, name: str, ipv6: bool) -> AddressAnswer | DNSError:
        try:
            return await self._resolver.addresses(name, ipv6)
        except DNSError as error:
            return error


def numeric(name: str) -> str | None:
    """The address that stands where a host's name should, or L{None}: it is meant, and works with other servers."""
    return None if "%" in name else parsed_address(name)


def unusable(address: str) -> str:
    """Why this address is no candidate."""
    return f"unable to look up host {address}: its protocol is not in inet_protocols"


def _late(name: str, preference: int) -> Host:
    text = f"Host or domain name not found. Name service error for name={name}: others before it took too long"
    return Host(name=name, preference=preference, error=DNSError(text, temporary=True))
