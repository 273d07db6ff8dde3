"""
Whether a server that mail is to go to is this service.

Source: C{smtp_find_self} of Postfix's C{smtp_addr.c}, with the addresses and ports that we really listen on: another
mail server may well run on this host beside us, and mail for it is no loop.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress

from smtpreuse.model.nexthop import Endpoint

# linux/netlink.h and linux/rtnetlink.h; a message's header has 16 octets, and the type of a route is the eighth behind.
_NLM_F_REQUEST, _RTM_NEWROUTE, _RTM_GETROUTE, _RTA_DST, _RTN_LOCAL = 1, 24, 26, 1, 2
_ROUTE_TYPE = 16 + 7
_LONGEST_ANSWER = 8192


def is_local(address: str) -> bool:
    """
    Whether this address is one of this host's, as the kernel's table of routes has it (rtnetlink(7)).

    That a socket can be bound to it says less: where C{ip_nonlocal_bind} is set, as it is where addresses move between
    hosts, that is so of every address. Where the table cannot be asked it has to do.
    """
    sought = ipaddress.ip_address(address)
    family = socket.AF_INET6 if sought.version == 6 else socket.AF_INET
    if sought.is_loopback or sought.is_unspecified:
        # What goes to no address at all stays here too (RFC 1122 section 3.2.1.3; Linux sends it to loopback).
        return True
    try:
        return _delivered_here(family, sought.packed)
    except (OSError, AttributeError):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
            return True
    return False


def _delivered_here(family: int, packed: bytes) -> bool:
    """
    @raise OSError: when the table of routes cannot be asked.
    @raise AttributeError: when this system has no netlink.
    """
    attribute = struct.pack("=HH", 4 + len(packed), _RTA_DST) + packed
    route = struct.pack("=8BI", family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0) + attribute
    header = struct.pack("=IHHII", 16 + len(route), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asked:
        asked.send(header + route)
        # The kernel answers within the call before.
        answer = asked.recv(_LONGEST_ANSWER, socket.MSG_DONTWAIT)
    (kind,) = struct.unpack_from("=H", answer, 4)
    # An error is an answer too: no way leads there, and to our own addresses there always is one.
    return kind == _RTM_NEWROUTE and answer[_ROUTE_TYPE] == _RTN_LOCAL


class Ourselves:
    """What this service is known by: its name, and where it listens."""

    def __init__(
        self, name: str, listens: Iterable[Endpoint] = (), local: Callable[[str], bool] = is_local
    ) -> None:
        """
        @param name: C{myhostname}.
        @param listens: see L{listen_on}.
        @param local: whether an address is one of this host's.
        """
        self._local = local
        self.adopt(name)
        self.listen_on(listens)

    def adopt(self, name: str) -> None:
        """Go by this name from now on; see L{__init__}."""
        self._name = name.lower()

    def listen_on(self, listens: Iterable[Endpoint]) -> None:
        """
        @param listens: addresses and ports; C{0.0.0.0} and C{::} stand for all of this host.
        """
        self._listens = frozenset(_plain(endpoint) for endpoint in listens)
        self._ports = frozenset(endpoint.port for endpoint in self._listens)
        # A socket bound to "::" takes IPv4 as well.
        wildcards = [endpoint for endpoint in self._listens if ipaddress.ip_address(endpoint.address).is_unspecified]
        self._everywhere = frozenset((endpoint.port, False) for endpoint in wildcards) | frozenset(
            (endpoint.port, True) for endpoint in wildcards if endpoint.ipv6
        )

    def may_be(self, port: int) -> bool:
        """Whether a server at this port can be us at all."""
        return port in self._ports

    def are(self, host: str, port: int) -> bool:
        """Whether this is our name at a port of ours."""
        return port in self._ports and host == self._name

    def listen_at(self, endpoint: Endpoint) -> bool:
        """Whether a connection to this endpoint would be one to ourselves."""
        endpoint = _plain(endpoint)
        if endpoint in self._listens:
            return True
        return (endpoint.port, endpoint.ipv6) in self._everywhere and self._local(endpoint.address)


def _plain(endpoint: Endpoint) -> Endpoint:
    """An IPv4 address in IPv6 form leads where the address in it does (RFC 4291 section 2.5.5.2)."""
    address = ipaddress.ip_address(endpoint.address)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return Endpoint(str(address.ipv4_mapped), endpoint.port)
    return endpoint
