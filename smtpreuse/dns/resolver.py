"""
Questions to recursive servers: several servers, a total time, answers remembered by their TTL, equal questions in
flight asked once, aliases followed.

Validates nothing itself: whether an answer is secure is what a resolver on this host says with its AD bit (RFC 6840
section 5.8). Source: RFC 1035, RFC 2308 (negative answers), RFC 6891 (EDNS),
RFC 9520 (failures), resolv.conf(5).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
from attrs import frozen
from zope.interface import implementer

from smtpreuse.dns.memory import Memory
from smtpreuse.errors import DNSError, NoSuchName, NoSuchRecords
from smtpreuse.interfaces import IResolver
from smtpreuse.model.nexthop import Endpoint, parsed_address
from smtpreuse.model.records import AddressAnswer, MXAnswer, MXRecord

Ask = Callable[[dns.message.QueryMessage, Endpoint, float], Awaitable[dns.message.Message]]

# Fits the smallest IPv6 packet, so that no answer arrives in fragments (DNS flag day 2020).
PAYLOAD = 1232
# Seconds each server is waited for in the first, second and third round, and for all of them together: what
# resolv.conf(5) gives one server (5 s, twice), but with a lost datagram noticed earlier.
WAITS = (2.0, 3.0, 5.0)
BUDGET = 10.0
# Seconds an answer is remembered at least and at most; 86,400 is unbound's cache-max-ttl. At least 5, so that a TTL of
# 0 does not cost one question per message.
LEAST_TTL = 5.0
MOST_TTL = 86_400.0
# RFC 2308 section 5 finds one to three hours sensible; unbound's cache-max-negative-ttl is one.
MOST_NEGATIVE_TTL = 3600.0
# RFC 9520 section 3.2: failures are to be remembered, at least 1 s, to begin with 5 s.
FAILURE_TTL = 5.0
# How many times an alias without its target may make us ask anew; one answer may hold up to 16 links (dnspython).
_MOST_QUESTIONS = 8
# A name is about 1 KiB with all that hangs on it: 20 MiB when full.
ENTRIES = 20_000

# What dnspython raises on octets that are no DNS message, or not enough of them.
_USELESS = (dns.exception.DNSException, EOFError, ValueError, LookupError)


@frozen
class _Found:
    """Records of one name and type."""

    records: tuple[dns.rdata.Rdata, ...]
    good_until: float
    secure: bool


@frozen
class _Nothing:
    """No records, and why."""

    error: type[NoSuchName] | type[NoSuchRecords] | None
    text: str

    def raised(self) -> DNSError:
        return DNSError(self.text, temporary=True) if self.error is None else self.error(self.text)


_Key = tuple[dns.name.Name, dns.rdatatype.RdataType]


@implementer(IResolver)
class Resolver:
    """
    Asks recursive servers.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        ask: Ask,
        servers: Sequence[Endpoint],
        *,
        dnssec: bool = False,
        entries: int = ENTRIES,
    ) -> None:
        """
        @param seconds: the UNIX time.
        @param ask: puts one question to one server within so many seconds
            (L{Exchange.ask<smtpreuse.dns.transport.Exchange.ask>}).
        @param servers: in the order of trial; one that was silent is asked last from then on.
        @param dnssec: whether to ask for proofs (the DO bit) and to count the AD bit of servers on loopback.
        """
        self._seconds = seconds
        self._ask = ask
        self._servers = list(servers)
        self._dnssec = dnssec
        self._memory: Memory[_Key, _Found | _Nothing] = Memory(seconds, entries)

    async def mx(self, domain: str) -> MXAnswer:
        """See L{IResolver.mx}."""
        found = await self._records(domain, dns.rdatatype.MX)
        records = tuple(
            MXRecord(record.preference, _text(record.exchange))
            for record in found.records
            if isinstance(record, dns.rdtypes.ANY.MX.MX)
        )
        return MXAnswer(records=records, good_until=found.good_until, secure=found.secure)

    async def addresses(self, host: str, ipv6: bool) -> AddressAnswer:
        """See L{IResolver.addresses}."""
        found = await self._records(host, dns.rdatatype.AAAA if ipv6 else dns.rdatatype.A)
        addresses = tuple(
            str(ipaddress.ip_address(record.address))
            for record in found.records
            if isinstance(record, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA)
        )
        return AddressAnswer(addresses=addresses, good_until=found.good_until, secure=found.secure)

    def forget(self) -> None:
        """Ask everything anew from now on."""
        self._memory.forget()

    async def _records(self, host: str, kind: dns.rdatatype.RdataType) -> _Found:
        try:
            name = dns.name.from_text(host).canonicalize()
        except (dns.exception.DNSException, ValueError) as error:
            raise DNSError(f"{host!r} is not a domain name: {error}", temporary=False) from error
        # RFC 2308 section 5 lets NXDOMAIN stand for every type of the name. But servers exist that answer so to AAAA
        # where they have A (RFC 4074 section 4.2), and one more question costs less than mail that comes back.
        found = await self._memory.recall((name, kind), partial(self._answer, name, kind))
        if isinstance(found, _Nothing):
            raise found.raised()
        return found

    async def _answer(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> tuple[_Found | _Nothing, float]:
        deadline = self._seconds() + BUDGET
        least = MOST_TTL
        secure = True
        asked = name
        for _ in range(_MOST_QUESTIONS):
            try:
                message, server = await self._message(asked, kind, deadline)
                chain = message.resolve_chaining()
            except DNSError as error:
                return _Nothing(None, str(error)), self._seconds() + FAILURE_TTL
            except _USELESS as error:
                return _Nothing(None, self._failure(asked, kind, _reason(error))), self._seconds() + FAILURE_TTL
            least = min(least, chain.minimum_ttl)
            secure = secure and self._vouched(message, server)
            if chain.answer is not None:
                good_until = self._seconds() + max(LEAST_TTL, least)
                return _Found(tuple(chain.answer), good_until, secure), good_until
            if message.rcode() == dns.rcode.NXDOMAIN or not chain.cnames or _has_authority(message):
                return self._negative(name, kind, least, message.rcode() == dns.rcode.NXDOMAIN)
            # An alias whose target the server did not look up: ask for that.
            asked = chain.canonical_name
        text = self._failure(name, kind, f"more than {_MOST_QUESTIONS} aliases in a row")
        return _Nothing(None, text), self._seconds() + FAILURE_TTL

    def _negative(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType, ttl: float, gone: bool
    ) -> tuple[_Nothing, float]:
        good_until = self._seconds() + max(LEAST_TTL, min(ttl, MOST_NEGATIVE_TTL))
        if gone:
            return _Nothing(NoSuchName, self._failure(name, kind, "Host not found")), good_until
        text = self._failure(name, kind, "Host found but no data record of requested type")
        return _Nothing(NoSuchRecords, text), good_until

    async def _message(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType, deadline: float
    ) -> tuple[dns.message.QueryMessage, Endpoint]:
        left = list(self._servers)
        reason = "no name server is configured"
        for wait in WAITS:
            for server in tuple(left):
                remaining = deadline - self._seconds()
                if remaining <= 0:
                    break
                try:
                    message = await self._said(name, kind, server, min(wait, remaining))
                except dns.exception.Timeout:
                    reason = f"{server} did not answer"
                    self._servers.remove(server)
                    self._servers.append(server)
                    continue
                except OSError as error:
                    reason = f"{server} cannot be asked: {error.strerror or error}"
                except _USELESS as error:
                    reason = f"{server}: {_reason(error)}"
                else:
                    fault = _fault(message)
                    if isinstance(message, dns.message.QueryMessage) and not fault:
                        return message, server
                    reason = f"{server} answered {fault}"
                # To ask this one again at once would bring the same.
                left.remove(server)
        raise DNSError(self._failure(name, kind, f"Host not found, try again ({reason})"), temporary=True)

    async def _said(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType, server: Endpoint, wait: float
    ) -> dns.message.Message:
        """What one server says; one that does not understand EDNS is asked without it (RFC 6891 section 7)."""
        until = self._seconds() + wait
        query = dns.message.make_query(name, kind, use_edns=0, payload=PAYLOAD, want_dnssec=self._dnssec)
        message = await self._ask(query, server, wait)
        if message.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            plain = dns.message.make_query(name, kind, use_edns=False)
            message = await self._ask(plain, server, max(0.0, until - self._seconds()))
        return message

    def _vouched(self, message: dns.message.Message, server: Endpoint) -> bool:
        """Between us and a server elsewhere, anybody could have set that bit."""
        return bool(
            self._dnssec and message.flags & dns.flags.AD and ipaddress.ip_address(server.address).is_loopback
        )

    @staticmethod
    def _failure(name: dns.name.Name, kind: dns.rdatatype.RdataType, reason: str) -> str:
        """In the words of Postfix, which log tools know."""
        kind_text = dns.rdatatype.to_text(kind)
        return f"Host or domain name not found. Name service error for name={_text(name)} type={kind_text}: {reason}"


def _text(name: dns.name.Name) -> str:
    text = name.to_text(omit_final_dot=True).lower()
    return "" if text == "." else text


def _reason(error: Exception) -> str:
    return f"useless answer ({type(error).__name__}: {error})"


def _fault(message: dns.message.Message) -> str:
    """Why an answer decides nothing; empty where it decides."""
    rcode = message.rcode()
    if not isinstance(message, dns.message.QueryMessage) or rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return dns.rcode.to_text(rcode)
    answers_itself = message.flags & (dns.flags.RA | dns.flags.AA)
    if rcode == dns.rcode.NOERROR and not message.answer and not answers_itself and not _has_authority(message):
        # It does not do recursion for us, and sends us to others (RFC 2308 section 2.2).
        return "with a referral"
    return ""


def _has_authority(message: dns.message.Message) -> bool:
    return any(rrset.rdtype == dns.rdatatype.SOA for rrset in message.authority)


def servers_from(configured: Sequence[Endpoint], resolv_conf: str = "/etc/resolv.conf") -> Sequence[Endpoint]:
    """
    The servers to ask.

    @param configured: they, unless there are none.
    @param resolv_conf: path of a file as resolv.conf(5) has it; where it names no server, 127.0.0.1 is asked.
    """
    if configured:
        return configured
    try:
        with open(resolv_conf, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        lines = []
    named = [line[1] for line in lines if len(line) > 1 and line[0] == "nameserver"]
    addresses = [address for name in named if (address := parsed_address(name)) is not None]
    return [Endpoint(address, 53) for address in addresses or ["127.0.0.1"]]
