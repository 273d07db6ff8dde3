"""
Which TLS protocols a handshake may use, in Postfix's syntax (C{postconf(5)}, C{smtp_tls_protocols}).

It knows names and numbers of protocols, and nothing of OpenSSL.
"""

from __future__ import annotations

import re

from attrs import frozen

# Numbers as they stand on the wire (RFC 8446 section 4.2.1), in ascending order.
NUMBERS = {"sslv2": 0x0002, "sslv3": 0x0300, "tlsv1": 0x0301, "tlsv1.1": 0x0302, "tlsv1.2": 0x0303, "tlsv1.3": 0x0304}
_SEPARATORS = re.compile(r"[\s,:]+")
_BOUND = re.compile(r"([<>]=)\s+")


@frozen(kw_only=True)
class Protocols:
    """
    @ivar lowest: number of the lowest protocol, or L{None} without a lower bound.
    @ivar highest: number of the highest protocol, or L{None} without an upper bound.
    @ivar excluded: numbers of the known protocols that are not to be used.
    """

    lowest: int | None = None
    highest: int | None = None
    excluded: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Protocols:
        """
        Read a list of C{>=NAME}, C{<=NAME}, C{!NAME} and C{NAME}; a name alone excludes all that are not named.

        @raise ValueError: when a word is none of these, or nothing is left to use.
        """
        lowest: int | None = None
        highest: int | None = None
        excluded: set[int] = set()
        included: set[int] = set()
        for word in filter(None, _SEPARATORS.split(_BOUND.sub(r"\1", text))):
            if word.startswith(">="):
                lowest = _number(word[2:], text)
            elif word.startswith("<="):
                highest = _number(word[2:], text)
            elif word.startswith("!"):
                excluded.add(_number(word[1:], text))
            else:
                included.add(_number(word, text))
        if included:
            excluded |= set(NUMBERS.values()) - included
        protocols = cls(lowest=lowest, highest=highest, excluded=frozenset(excluded))
        if not any(protocols.allows(number) for number in NUMBERS.values()):
            raise ValueError(f"protocols {text!r} leave none to use")
        return protocols

    def allows(self, number: int) -> bool:
        """Whether the protocol of this number may be used."""
        return (
            number not in self.excluded
            and (self.lowest is None or number >= self.lowest)
            and (self.highest is None or number <= self.highest)
        )


def _number(name: str, text: str) -> int:
    try:
        return NUMBERS[name.lower()]
    except KeyError:
        raise ValueError(
            f"protocols {text!r} name {name!r} (allowed: SSLv2, SSLv3, TLSv1, TLSv1.1, TLSv1.2, TLSv1.3)"
        ) from None
