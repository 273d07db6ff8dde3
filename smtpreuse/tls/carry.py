"""
May this session carry this request?

The one predicate of reuse, for fresh sessions and for reused ones. It is pure and cheap (under 3 microseconds): a lane
asks it before every transaction.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from attrs import frozen

from smtpreuse.model.policy import Level
from smtpreuse.model.reuse import Needs, ReuseKey, SessionFacts


class Reason(Enum):
    """Why a session may not carry a request."""

    KEY = "it was opened in another way"
    SINGLE = "it served its one request"
    AGE = "it is past its time"
    USES = "it has served as many transactions as it may"
    LEVEL = "it proved less than the policy asks for"
    REUSE = "the policy forbids to reuse a TLS session"
    SIZE = "its server takes no message of this size"


@frozen
class Yes:
    """It may."""

    def __bool__(self) -> Literal[True]:
        return True


@frozen
class No:
    """It may not."""

    reason: Reason

    def __bool__(self) -> Literal[False]:
        return False


_YES = Yes()
_NO = {reason: No(reason) for reason in Reason}


def may_carry(key: ReuseKey, facts: SessionFacts, needs: Needs, now: float, *, most_uses: int = 0) -> Yes | No:
    """
    A stronger session may carry a weaker request; never the reverse.

    @param now: UNIX time.
    @param most_uses: how many transactions may follow the first one (C{smtp_connection_reuse_count_limit}); 0 for any
        number.
    """
    if worn := worn_out(facts, now, most_uses=most_uses):
        return _NO[worn]
    if needs.key is not key and needs.key != key:
        return _NO[Reason.KEY]
    if facts.tls is None:
        if needs.level >= Level.ENCRYPT:
            return _NO[Reason.LEVEL]
    elif facts.uses and not needs.connection_reuse:
        return _NO[Reason.REUSE]
    if needs.size > (facts.capabilities.size or needs.size):
        return _NO[Reason.SIZE]
    return _YES


def worn_out(facts: SessionFacts, now: float, *, most_uses: int = 0) -> Reason | None:
    """
    Why a session will carry nothing any more, whatever the request; L{None} when it may.

    @param now: UNIX time.
    @param most_uses: as in L{may_carry}.
    """
    if facts.uses:
        if facts.single:
            return Reason.SINGLE
        if 0 < most_uses < facts.uses:
            return Reason.USES
    if now > facts.good_until:
        return Reason.AGE
    return None
