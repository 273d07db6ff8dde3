"""
From a nexthop to its candidates, in the order of trial.

Knows neither sessions nor which endpoints failed lately. Source: Postfix's C{smtp_addr.c} and C{smtp_connect.c}, RFC
5321 section 5.1 (MX records), RFC 7505 (null MX).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from smtpreuse.config.settings import Settings
from smtpreuse.errors import AddressError, DNSError, NoSuchName, NoSuchRecords, RouteError
from smtpreuse.interfaces import IResolver
from smtpreuse.model.nexthop import Candidate, Endpoint, Nexthop, parsed_address
from smtpreuse.model.policy import Policy
from smtpreuse.model.records import AddressAnswer, MXAnswer, MXRecord
from smtpreuse.routing.families import balanced, by_family
from smtpreuse.routing.ourselves import Ourselves

# Postfix's cap on the addresses of one destination (smtp_addr.c), for where smtp_mx_address_limit is 0.
_MOST_ADDRESSES = 100
_FOREVER = float("inf")


@frozen(kw_only=True)
class Found:
    """
    What a nexthop leads to.

    @ivar records: its MX records, all of them; none where it has none or was not asked for them.
    @ivar good_until: UNIX time at which the first of the answers expires.
    @ivar partial: whether a host was left out that may be found when asked again.
    @ivar backup: whether we are one of its MX hosts, behind those that are left.
    """

    candidates: tuple[Candidate, ...]
    records: tuple[MXRecord, ...]
    good_until: float
    partial: bool = False
    backup: bool = False


@frozen(kw_only=True)
class _Host:
    """What is known of one host: its addresses, or why there are none."""

    name: str
    preference: int = 0
    addresses: tuple[str, ...] = ()
    good_until: float = _FOREVER
    error: DNSError | None = None


class Candidates:
    """Resolves nexthops."""

    log = Logger()

    def __init__(
        self, settings: Settings, resolver: IResolver, ourselves: Ourselves, source: random.Random
    ) -> None:
        """
        @param source: of the order among equals.
        """
        self._resolver = resolver
        self._ourselves = ourselves
        self._random = source
        self._families = tuple(family == "ipv6" for family in settings.inet_protocols)
        self._preferred = settings.smtp_address_preference
        self._limit = settings.smtp_mx_address_limit or _MOST_ADDRESSES
        self._mx = settings.smtp_dns_support_level != "disabled"

    async def find(self, nexthop: Nexthop, policy: Policy) -> Found:
        """
        Resolve a nexthop.

        @param policy: what its candidates must prove.
        @raise RouteError: with the status to defer or to bounce with.
        """
        address = parsed_address(nexthop.host)
        if address is not None:
            return self._literal(nexthop, address, policy)
        answer = None if nexthop.literal or not self._mx else await self._mail_hosts(nexthop.host)
        if answer is None:
            if self._ourselves.are(nexthop.host, nexthop.port):
                raise _loop(nexthop)
            hosts, reached = [await self._host(nexthop.host, 0)], None
            if hosts[0].error is not None:
                raise _unreachable(hosts[0].error)
        else:
            hosts, reached = await self._reachable(nexthop, answer.records)
        self._check(nexthop, hosts, reached)
        return evolve(self._ordered(nexthop, policy, hosts, answer), backup=reached is not None)

    def _literal(self, nexthop: Nexthop, address: str, policy: Policy) -> Found:
        endpoint = Endpoint(address, nexthop.port)
        if endpoint.ipv6 not in self._families:
            raise RouteError("5.4.4", _unusable(address))
        if self._ourselves.listen_at(endpoint):
            raise _loop(nexthop)
        candidate = Candidate(endpoint=endpoint, host=address, preference=0, policy=policy)
        return Found(candidates=(candidate,), records=(), good_until=_FOREVER)

    async def _mail_hosts(self, domain: str) -> MXAnswer | None:
        """
        The MX records of a domain that can be used; L{None} where it has none, and is its own mail host.
        """
        try:
            answer = await self._resolver.mx(domain)
        except (NoSuchName, NoSuchRecords):
            # The name may be known elsewhere than in DNS; whether it is gone shows with its addresses.
            return None
        except DNSError as error:
            raise _unreachable(error) from error
        if answer.records and not any(record.host for record in answer.records):
            raise RouteError("5.1.10", f"Domain {domain} does not accept mail (nullMX): 556 5.1.10 (RFC 7505)")
        # A null MX beside others is a mistake that RFC 7505 section 3 says nothing may follow from; other names that no
        # host can have are mistakes too.
        for record in answer.records:
            if _numeric(record.host):
                self.log.warn("MX record of {domain} names an address: {host}", domain=domain, host=record.host)
        return evolve(answer, records=tuple(record for record in answer.records if _is_host(record.host)))

    async def _reachable(self, nexthop: Nexthop, records: Sequence[MXRecord]) -> tuple[list[_Host], int | None]:
        """
        Look up mail hosts, the preferred ones first, until there are addresses enough.

        @return: the hosts, and the preference from which on the hosts would be ourselves or worse, if any.
        """
        hosts: list[_Host] = []
        for preference, group in groupby(sorted(records, key=lambda record: record.preference), lambda r: r.preference):
            level: list[_Host] = []
            names = sorted({record.host for record in group})
            self._random.shuffle(names)
            if any(self._ourselves.are(name, nexthop.port) for name in names):
                return hosts, preference
            for name in names:
                # Where one of them may be us, the equals of that one must be known before any is taken.
                if not self._ourselves.may_be(nexthop.port) and self._enough([*hosts, *level]):
                    break
                level.append(await self._host(name, preference))
            if any(self._ourselves.listen_at(Endpoint(a, nexthop.port)) for host in level for a in host.addresses):
                return hosts, preference
            hosts += level
            if self._enough(hosts):
                break
        return hosts, None

    def _enough(self, hosts: Sequence[_Host]) -> bool:
        """
        Whether so many addresses are known as will be tried, and IPv4 ones among them: where IPv6 does not get through,
        nothing else would be left.
        """
        addresses = [address for host in hosts for address in host.addresses]
        return len(addresses) >= self._limit and (
            False not in self._families or any(":" not in address for address in addresses)
        )

    async def _host(self, name: str, preference: int) -> _Host:
        """The addresses of one host in all families at once."""
        address = _numeric(name)
        if address is not None:
            if (":" in address) in self._families:
                return _Host(name=address, preference=preference, addresses=(address,))
            return _Host(name=address, preference=preference, error=NoSuchRecords(_unusable(address)))
        asked = [Deferred.fromCoroutine(self._addresses(name, ipv6)) for ipv6 in self._families]
        answers = await gatherResults(asked, consumeErrors=True)
        found = [answer for answer in answers if isinstance(answer, AddressAnswer)]
        if found:
            return _Host(
                name=name,
                preference=preference,
                addresses=tuple(address for answer in found for address in answer.addresses),
                good_until=min(answer.good_until for answer in found),
            )
        errors = [answer for answer in answers if isinstance(answer, DNSError)]
        error = next((error for error in errors if error.temporary), errors[0])
        return _Host(name=name, preference=preference, error=error)

    async def _addresses(self, name: str, ipv6: bool) -> AddressAnswer | DNSError:
        try:
            return await self._resolver.addresses(name, ipv6)
        except DNSError as error:
            return error

    def _check(self, nexthop: Nexthop, hosts: Sequence[_Host], reached: int | None) -> None:
        """
        @raise RouteError: when no host is left to try.
        """
        if reached is None and any(
            self._ourselves.listen_at(Endpoint(address, nexthop.port)) for host in hosts for address in host.addresses
        ):
            raise _loop(nexthop)
        if any(host.addresses for host in hosts):
            return
        if reached is not None:
            if hosts:
                raise RouteError("4.4.4", f"unable to find primary relay for {nexthop}")
            raise _loop(nexthop)
        errors = [host.error for host in hosts if host.error is not None]
        if not errors:
            raise RouteError("5.4.4", f"no MX host for {nexthop} has a valid name")
        raise _unreachable(next((error for error in errors if error.temporary), errors[-1]))

    def _ordered(self, nexthop: Nexthop, policy: Policy, hosts: Sequence[_Host], answer: MXAnswer | None) -> Found:
        candidates = [
            Candidate(
                endpoint=Endpoint(address, nexthop.port), host=host.name, preference=host.preference, policy=policy
            )
            for host in hosts
            for address in host.addresses
        ]
        self._random.shuffle(candidates)
        candidates = by_family(_once(candidates), self._preferred)[:_MOST_ADDRESSES]
        expiries = [host.good_until for host in hosts]
        if answer is not None:
            expiries.append(answer.good_until)
        return Found(
            candidates=tuple(balanced(candidates, self._limit)),
            records=answer.records if answer is not None else (),
            good_until=min(expiries),
            partial=any(host.error is not None and host.error.temporary for host in hosts),
        )


def _once(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Each endpoint once, at its best preference: hosts may share addresses."""
    best: dict[Endpoint, Candidate] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.preference):
        best.setdefault(candidate.endpoint, candidate)
    return list(best.values())


def _unusable(address: str) -> str:
    return f"unable to look up host {address}: its protocol is not in inet_protocols"


def _numeric(name: str) -> str | None:
    """The address that stands where a host's name should, or L{None}: it is meant, and works with other servers."""
    return None if "%" in name else parsed_address(name)


def _is_host(name: str) -> bool:
    if _numeric(name) is not None:
        return True
    try:
        return not Nexthop.parse(name).literal and ":" not in name
    except AddressError:
        return False


def _unreachable(error: DNSError) -> RouteError:
    return RouteError("4.4.3" if error.temporary else "5.4.4", str(error))


def _loop(nexthop: Nexthop) -> RouteError:
    return RouteError("5.4.6", f"mail for {nexthop} loops back to myself")
