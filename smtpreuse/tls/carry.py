"""
May this session carry this request?

The one predicate of reuse, for fresh sessions and for reused ones. It is pure and cheap (under 3 microseconds): a lane
asks it before every transaction.
"""

from __future__ import annotations

from collections.abc import Set
from enum import Enum
from typing import Literal, Protocol

from attrs import frozen

from smtpreuse.model.nexthop import Endpoint
from smtpreuse.model.policy import Level
from smtpreuse.model.reuse import Carrier, Needs, Profile, ReuseKey, SessionFacts
from smtpreuse.model.route import Route


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


class Seeker(Protocol):
    """
    What looks for a session: a request, or what will become one.

    @ivar route: L{None} while it is not known.
    @ivar size: octets of its content.
    @ivar tried: endpoints that it is not to be given to.
    @ivar fresh: whether only a new session will do.
    """

    @property
    def route(self) -> Route | None: ...

    @property
    def size(self) -> int: ...

    @property
    def tried(self) -> Set[Endpoint]: ...

    @property
    def fresh(self) -> bool: ...


def serves(carrier: Carrier, seeker: Seeker, profile: Profile, now: float, *, most_uses: int = 0) -> bool:
    """
    Whether a lane's session serves this one: it leads to one of its candidates, which was not tried, and may carry it.

    @param profile: what sessions that are opened now have in common.
    @param now: UNIX time.
    @param most_uses: as in L{may_carry}.
    """
    key, facts = carrier.key, carrier.facts
    candidate = seeker.route.candidate(key.endpoint) if seeker.route is not None else None
    if candidate is None or key.endpoint in seeker.tried or (seeker.fresh and facts.uses):
        return False
    return bool(may_carry(key, facts, profile.needs(candidate, seeker.size), now, most_uses=most_uses))


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
