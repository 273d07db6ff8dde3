"""
What a server announced in its reply to EHLO (RFC 5321 section 4.1.1.1).
"""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Capabilities:
    """
    @ivar size: the largest message in octets (RFC 1870); 0 when announced without a number, L{None} when not at all.
    @ivar keywords: every keyword in upper case, known to us or not.
    """

    esmtp: bool = False
    pipelining: bool = False
    eight_bit: bool = False
    starttls: bool = False
    size: int | None = None
    keywords: frozenset[str] = frozenset()
