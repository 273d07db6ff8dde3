"""
What a handshake proved, judged against what a policy asks for.

One function for fresh and for reused sessions alike. It is pure: it knows neither network nor clock.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from smtpreuse.model.policy import Policy


class Trust(Enum):
    """How far the peer is known, in the words of Postfix's log (C{tls_misc.c})."""

    ANONYMOUS = "Anonymous"
    UNTRUSTED = "Untrusted"
    TRUSTED = "Trusted"
    VERIFIED = "Verified"


@frozen(kw_only=True)
class Verdict:
    """
    @ivar matched: whether the session proved all that the policy asks for.
    @ivar reason: why it did not; empty when it did.
    """

    trust: Trust
    matched: bool
    reason: str = ""

    @property
    def word(self) -> str:
        """As the operator's log names it."""
        return self.trust.value


_ANONYMOUS = Verdict(trust=Trust.ANONYMOUS, matched=True)
_UNTRUSTED = Verdict(trust=Trust.UNTRUSTED, matched=True)


def verify(chain: tuple[bytes, ...], policy: Policy, names: tuple[str, ...], now: float) -> Verdict:
    """
    Judge a chain. At the levels C{none}, C{may} and C{encrypt} nobody asks who the peer is: whatever it showed will do,
    and its certificate is not even parsed, so that an odd one never costs a delivery.

    @param chain: the certificates as the peer sent them, DER, its own first; empty when it showed none.
    @param names: names of which the peer's certificate must bear one, where the level asks for it.
    @param now: UNIX time, by the clock on the wall, at which the certificates must be valid, where the level asks for
        it.
    """
    return _UNTRUSTED if chain else _ANONYMOUS
