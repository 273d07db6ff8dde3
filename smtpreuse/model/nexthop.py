"""
Where routing sends: nexthops, endpoints and the candidates of a destination.
"""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

from smtpreuse.errors import AddressError
from smtpreuse.model.policy import Policy

# Labels of RFC 1035 section 2.3.4, and underscores, which occur. The dot between them is not optional: were it, a long
# name with a bad character at its end would be cut into labels in exponentially many ways.
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\.?$){_LABEL}(\.{_LABEL})*\.?")
_PORT = re.compile(r"[0-9]{1,5}")
_SERVICES = {"smtp": 25, "submission": 587}


@frozen(kw_only=True)
class Nexthop:
    """
    Where routing sends: C{domain}, C{domain:port}, C{[host]} or C{[host]:port}.

    @ivar host: a domain or host name in lower case, or an address without brackets.
    @ivar port: 1 to 65535.
    @ivar literal: whether it stood in brackets, so that no MX records are asked for.
    """

    host: str
    port: int = 25
    literal: bool = False

    @classmethod
    def parse(cls, text: str) -> Nexthop:
        """
        @raise AddressError: when it is not of one of the four forms.
        """
        host, port, literal = text.strip(), "", False
        if host.startswith("["):
            host, closed, rest = host[1:].partition("]")
            literal = True
            if not closed or (rest and not rest.startswith(":")):
                raise AddressError(f"nexthop {text!r} is not [host] or [host]:port")
            port = rest[1:]
        elif ":" in host:
            host, rest, port = host.rpartition(":")
        else:
            rest = ""
        if rest and not port:
            raise AddressError(f"nexthop {text!r} names no port behind its colon")
        number = _SERVICES.get(port or "smtp") or (int(port) if _PORT.fullmatch(port) else 0)
        if not 1 <= number <= 65535:
            raise AddressError(f"nexthop {text!r} has no such port: {port!r} (allowed: 1 to 65535, smtp, submission)")
        host = host.lower()
        if literal:
            host = host.removeprefix("ipv6:")
            address = parsed_address(host)
            if address is None and not _HOST.fullmatch(host):
                raise AddressError(f"nexthop {text!r} names neither a host nor an address")
            host = address or host
        elif not _HOST.fullmatch(host):
            raise AddressError(f"nexthop {text!r} is not a domain (an address goes in brackets)")
        return cls(host=host.rstrip("."), port=number, literal=literal)

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.literal else self.host
        return host if self.port == 25 else f"{host}:{self.port}"


def parsed_address(text: str) -> str | None:
    """The IPv4 or IPv6 address in its canonical form, or L{None} when the text is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


@frozen
class Endpoint:
    """
    A server's address and port.

    @ivar address: IPv4 or IPv6 in canonical form.
    """

    address: str
    port: int

    @property
    def ipv6(self) -> bool:
        """Whether the address is one of IPv6."""
        return ":" in self.address

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}"


@frozen(kw_only=True)
class Candidate:
    """
    One endpoint of a destination, in the order of trial.

    @ivar host: the MX host's name, or the address where there is no name.
    @ivar preference: of the MX record, 0 where there was none; the lower goes first.
    @ivar policy: what a connection to this host must prove.
    @ivar configured: whether our own configuration names it, as C{relayhost} or C{smtp_fallback_relay}.
    """

    endpoint: Endpoint
    host: str
    preference: int
    policy: Policy
    configured: bool = False

    @property
    def relay(self) -> str:
        """As the operator's log names it: C{host[address]:port}."""
        return f"{self.host}[{self.endpoint.address}]:{self.endpoint.port}"
