"""
The system's own look-up of addresses (C{getaddrinfo}: /etc/hosts and what nsswitch.conf(5) names), and which look-ups
are asked in which order.

Knows no MX records: the system has none. Source: postconf(5), C{smtp_host_lookup}; C{smtp_addr.c}: what DNS does not
have is looked for elsewhere, what it could not tell now is not.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTCP, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from smtpreuse.config.settings import Settings
from smtpreuse.dns.memory import Memory
from smtpreuse.dns.resolver import Resolver, servers_from
from smtpreuse.dns.transport import Exchange
from smtpreuse.errors import DNSError, NoSuchName, NoSuchRecords
from smtpreuse.interfaces import IResolver
from smtpreuse.model.records import AddressAnswer, MXAnswer

LookUp = Callable[[str, bool], Awaitable[Sequence[str]]]
"""Addresses of a host, of IPv6 or else of IPv4; raises what C{socket.getaddrinfo} raises."""

# The system tells no TTL; a minute keeps a changed /etc/hosts from being overlooked for long.
_TTL = 60.0
# A thread cannot be called back; what takes longer counts as no answer. Twice what resolv.conf(5) gives a server.
_LONGEST = 20.0
_ENTRIES = 5_000
_TEMPORARY = (socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY)
# Not in every C library; GNU's and BSD's are meant.
_NO_DATA = (getattr(socket, "EAI_NODATA", -5), getattr(socket, "EAI_ADDRFAMILY", -9))


def threaded(reactor: IReactorThreads, pool: ThreadPool) -> LookUp:
    """
    C{getaddrinfo} in a thread.

    @param reactor: one that does threads and time.
    @param pool: whose threads do it.
    """
    clock = IReactorTime(reactor)

    def called(host: str, family: socket.AddressFamily) -> list[str]:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))

    async def look_up(host: str, ipv6: bool) -> Sequence[str]:
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        looking: Deferred[list[str]] = deferToThreadPool(reactor, pool, called, host, family)
        return await looking.addTimeout(_LONGEST, clock)

    return look_up


@implementer(IResolver)
class NativeResolver:
    """Asks the system."""

    def __init__(self, seconds: Callable[[], float], look_up: LookUp) -> None:
        """
        @param seconds: the UNIX time.
        @param look_up: see L{threaded}.
        """
        self._seconds = seconds
        self._look_up = look_up
        self._memory: Memory[tuple[str, bool], AddressAnswer] = Memory(seconds, _ENTRIES)

    async def mx(self, domain: str) -> MXAnswer:
        """See L{IResolver.mx}: there are none."""
        raise NoSuchRecords(f"the system's look-up has no MX records: {domain}")

    async def addresses(self, host: str, ipv6: bool) -> AddressAnswer:
        """See L{IResolver.addresses}."""

        async def looked_up() -> tuple[AddressAnswer, float]:
            good_until = self._seconds() + _TTL
            return AddressAnswer(addresses=await self._found(host, ipv6), good_until=good_until), good_until

        return await self._memory.recall((host, ipv6), looked_up)

    async def _found(self, host: str, ipv6: bool) -> tuple[str, ...]:
        try:
            found = tuple(await self._look_up(host, ipv6))
        except TimeoutError as error:
            raise DNSError(f"the system did not find {host} in {_LONGEST:.0f} s", temporary=True) from error
        except socket.gaierror as error:
            text = f"the system did not find {host}: {error.strerror}"
            if error.errno in _TEMPORARY:
                raise DNSError(text, temporary=True) from error
            raise (NoSuchRecords(text) if error.errno in _NO_DATA else NoSuchName(text)) from error
        except (OSError, UnicodeError) as error:
            raise DNSError(f"the system did not find {host}: {error}", temporary=isinstance(error, OSError)) from error
        if not found:
            raise NoSuchRecords(f"the system knows no such address of {host}")
        return found


@implementer(IResolver)
class OrderedResolver:
    """
    Addresses from the first look-up that has them; MX records from DNS alone.
    """

    def __init__(self, mail: IResolver, hosts: Sequence[IResolver]) -> None:
        """
        @param mail: who is asked for MX records.
        @param hosts: who are asked for addresses; the next one when the one before has none.
        """
        self._mail = mail
        self._hosts = hosts

    async def mx(self, domain: str) -> MXAnswer:
        """See L{IResolver.mx}."""
        return await self._mail.mx(domain)

    async def addresses(self, host: str, ipv6: bool) -> AddressAnswer:
        """See L{IResolver.addresses}."""
        for resolver in self._hosts[:-1]:
            try:
                return await resolver.addresses(host, ipv6)
            except (NoSuchName, NoSuchRecords):
                continue
        return await self._hosts[-1].addresses(host, ipv6)


def resolver_of(settings: Settings, reactor: IReactorTCP, pool: ThreadPool) -> IResolver:
    """
    Who answers under these settings.

    @param reactor: one that does TCP, descriptors, threads and time.
    @param pool: whose threads ask the system.
    """
    clock = IReactorTime(reactor)
    native = NativeResolver(clock.seconds, threaded(IReactorThreads(reactor), pool))
    if settings.smtp_dns_support_level == "disabled":
        return native
    servers = servers_from(settings.dns_servers)
    dnssec = settings.smtp_dns_support_level == "dnssec"
    resolver = Resolver(clock.seconds, Exchange(reactor).ask, servers, dnssec=dnssec)
    bodies: dict[str, IResolver] = {"dns": resolver, "native": native}
    return OrderedResolver(resolver, [bodies[name] for name in settings.smtp_host_lookup])
