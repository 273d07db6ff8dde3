"""
From a nexthop to its candidates, in the order of trial.

Knows neither sessions nor which endpoints failed lately. Source: Postfix's C{smtp_addr.c} and C{smtp_connect.c}, RFC
5321 section 5.1 (MX records), RFC 7505 (null MX).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import groupby

from attrs import evolve, frozen
from twisted.logger import Logger

from smtpreuse.config.settings import Settings
from smtpreuse.errors import AddressError, DNSError, NoSuchName, NoSuchRecords, RouteError
from smtpreuse.interfaces import IResolver
from smtpreuse.model.nexthop import Candidate, Endpoint, Nexthop, parsed_address
from smtpreuse.model.policy import Policy
from smtpreuse.model.records import MXAnswer, MXRecord
from smtpreuse.routing.families import balanced, by_family
from smtpreuse.routing.hosts import Host, HostSearch, numeric, unusable
from smtpreuse.routing.ourselves import Ourselves

# Postfix's cap on the addresses of one destination (smtp_addr.c), for where smtp_mx_address_limit is 0.
_MOST_ADDRESSES = 100
# As many MX records of one domain count, the best ones: a domain may have thousands, and each has its look-ups.
_MOST_RECORDS = 100


@frozen(kw_only=True)
class Found:
    """
    What a nexthop leads to.

    @ivar records: its MX records, of more than a hundred the best; none where it has none or was not asked for them.
    @ivar good_until: UNIX time at which the first of the answers expires.
    @ivar partial: whether a host was left out that may be found when asked again.
    @ivar backup: whether we are one of its MX hosts, behind those that are left.
    """

    candidates: tuple[Candidate, ...]
    records: tuple[MXRecord, ...]
    good_until: float
    partial: bool = False
    backup: bool = False


class Candidates:
    """Resolves nexthops."""

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        resolver: IResolver,
        ourselves: Ourselves,
        source: random.Random,
        seconds: Callable[[], float],
    ) -> None:
        """
        @param source: of the order among equals.
        @param seconds: the UNIX time.
        """
        self._resolver = resolver
        self._ourselves = ourselves
        self._random = source
        self._seconds = seconds
        self._families = tuple(family == "ipv6" for family in settings.inet_protocols)
        self._preferred = settings.smtp_address_preference
        self._limit = settings.smtp_mx_address_limit or _MOST_ADDRESSES
        self._fallback = bool(settings.smtp_fallback_relay)
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
        search = HostSearch(self._resolver, self._families, self._limit, self._seconds)
        answer = None if nexthop.literal or not self._mx else await self._mail_hosts(nexthop.host)
        if answer is None:
            if self._ourselves.are(nexthop.host, nexthop.port):
                raise _loop(nexthop)
            hosts, reached = await search.equals([nexthop.host], 0, True), None
            if hosts[0].error is not None:
                raise _unreachable(hosts[0].error)
        else:
            hosts, reached = await self._reachable(nexthop, answer.records, search)
        self._check(nexthop, hosts, reached)
        return evolve(self._ordered(nexthop, policy, hosts, answer), backup=reached is not None)

    def _literal(self, nexthop: Nexthop, address: str, policy: Policy) -> Found:
        endpoint = Endpoint(address, nexthop.port)
        if endpoint.ipv6 not in self._families:
            raise RouteError("5.4.4", unusable(address))
        if self._ourselves.listen_at(endpoint):
            raise _loop(nexthop)
        candidate = Candidate(endpoint=endpoint, host=address, preference=0, policy=policy)
        return Found(candidates=(candidate,), records=(), good_until=float("inf"))

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
        records = [record for record in answer.records if _is_host(record.host)]
        records = sorted(records, key=lambda record: (record.preference, record.host))[:_MOST_RECORDS]
        for record in records:
            if numeric(record.host):
                self.log.warn("MX record of {domain} names an address: {host}", domain=domain, host=record.host)
        return evolve(answer, records=tuple(records))

    async def _reachable(
        self, nexthop: Nexthop, records: Sequence[MXRecord], search: HostSearch
    ) -> tuple[list[Host], int | None]:
        """
        Look up mail hosts, the preferred ones first, until there are addresses enough. Where there is a fallback relay
        it must be known besides whether we are among them, however far behind.

        @param records: in the order of their preference.
        @return: the hosts, and the preference from which on the hosts would be ourselves or worse, if any.
        """
        hosts: list[Host] = []
        for preference, group in groupby(records, key=lambda record: record.preference):
            names = sorted({record.host for record in group})
            self._random.shuffle(names)
            if any(self._ourselves.are(name, nexthop.port) for name in names):
                return hosts, preference
            # Where one of them may be us, the equals of that one must be known before any is taken.
            equals = await search.equals(names, preference, self._ourselves.may_be(nexthop.port))
            if any(self._ourselves.listen_at(Endpoint(a, nexthop.port)) for host in equals for a in host.addresses):
                return hosts, preference
            hosts += equals
            if not search.missing() and not (self._fallback and self._ourselves.may_be(nexthop.port)):
                break
        return hosts, None

    def _check(self, nexthop: Nexthop, hosts: Sequence[Host], reached: int | None) -> None:
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

    def _ordered(self, nexthop: Nexthop, policy: Policy, hosts: Sequence[Host], answer: MXAnswer | None) -> Found:
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


def _is_host(name: str) -> bool:
    if numeric(name) is not None:
        return True
    try:
        return not Nexthop.parse(name).literal and ":" not in name
    except AddressError:
        return False


def _unreachable(error: DNSError) -> RouteError:
    return RouteError("4.4.3" if error.temporary else "5.4.4", str(error))


def _loop(nexthop: Nexthop) -> RouteError:
    return RouteError("5.4.6", f"mail for {nexthop} loops back to myself")
