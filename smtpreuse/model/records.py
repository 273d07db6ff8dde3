"""
Answers of the domain name system, as routing wants them.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class MXRecord:
    """One MX record: C{host} in lower case without the final dot; empty for the null MX (RFC 7505)."""

    preference: int
    host: str


@frozen(kw_only=True)
class MXAnswer:
    """
    @ivar good_until: UNIX time at which its TTL ends.
    @ivar secure: whether a trusted resolver validated it.
    """

    records: tuple[MXRecord, ...]
    good_until: float
    secure: bool = False


@frozen(kw_only=True)
class AddressAnswer:
    """
    @ivar addresses: in canonical form.
    @ivar good_until: UNIX time at which its TTL ends.
    @ivar secure: whether a trusted resolver validated it.
    """

    addresses: tuple[str, ...]
    good_until: float
    secure: bool = False
