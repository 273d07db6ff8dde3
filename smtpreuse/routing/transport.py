"""
From a recipient to its hop, by configuration alone: C{transport_maps}, then C{relayhost}, else the recipient's domain.

Asks no name server. Source: Postfix's transport(5), C{transport_maps} and C{relayhost} of postconf(5), RFC 5321 section
4.1.3 for domains that are addresses. Called for every recipient, so what a domain gives is remembered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from smtpreuse.config.settings import Settings
from smtpreuse.errors import AddressError
from smtpreuse.model.nexthop import Nexthop, parsed_address

# About 200 octets each.
_MOST_DOMAINS = 50_000


class Transport:
    """
    The hops that one configuration gives.

    @ivar fingerprint: differs when the configuration of hops does: mail in the spool is to be routed anew then.
    """

    def __init__(self, settings: Settings) -> None:
        self._tables = settings.transport_maps
        self._relay = f"smtp:{settings.relayhost}" if settings.relayhost is not None else None
        entries = sorted((key, value, number) for number, (_, key, value) in enumerate(self._ordered()))
        self.fingerprint = hashlib.sha256(repr((self._relay, entries)).encode()).hexdigest()
        # A table that answers every key answers whole addresses too; that goes before a domain in a table behind it.
        self._whole = any("@" in key or not key for _, key, _ in self._tables.items())
        self._domains: dict[str, str] = {}

    def _ordered(self) -> Iterator[tuple[str, str, str]]:
        """Entries in an order that depends on what tables say, and not on how they are written."""
        for table in self._tables.tables:
            yield from ((table.name, key, table.entries[key]) for key in sorted(table.entries))
            if table.always is not None:
                yield table.name, "", table.always

    def hop(self, recipient: str) -> str:
        """See L{IRouter.hop<smtpreuse.interfaces.IRouter.hop>}."""
        domain = recipient[recipient.rfind("@") :]
        if self._whole and domain[:1] == "@":
            found = self._tables.get(recipient)
            if found is not None:
                return self._result(found, domain[1:])
        hop = self._domains.get(domain)
        if hop is None:
            hop = self._of_domain(domain)
            if len(self._domains) >= _MOST_DOMAINS:
                self._domains.clear()
            self._domains[domain] = hop
        return hop

    def _of_domain(self, text: str) -> str:
        domain = text[1:].removesuffix(".").lower()
        if not text.startswith("@") or not domain:
            return "error:5.1.3 the recipient has no domain"
        if self._tables:
            for key in _keys(domain):
                found = self._tables.get(key)
                if found is not None:
                    return self._result(found, domain)
        return self._relay or self._direct(domain)

    def _result(self, found: str, domain: str) -> str:
        transport, _, nexthop = found.partition(":")
        if transport != "smtp":
            return found
        return f"smtp:{Nexthop.parse(nexthop)}" if nexthop else self._direct(domain)

    def _direct(self, domain: str) -> str:
        try:
            nexthop = Nexthop.parse(domain)
        except AddressError:
            return f"error:5.1.3 bad domain of recipient: {domain!r}"
        # A domain names no port; an address stands in brackets, and nothing else does.
        numeric = parsed_address(nexthop.host) is not None
        well = numeric and domain.endswith("]") if nexthop.literal else not numeric and ":" not in domain
        return f"smtp:{nexthop}" if well else f"error:5.1.3 bad domain of recipient: {domain!r}"


def _keys(domain: str) -> Iterator[str]:
    """What is looked up for a domain, in this order."""
    yield domain
    if not domain.startswith("["):
        dot = domain.find(".")
        while dot >= 0:
            yield domain[dot:]
            dot = domain.find(".", dot + 1)
    yield "*"
