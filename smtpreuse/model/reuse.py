"""
What makes one session as good as another: how it was opened, and what it proved and offers.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.nexthop import Candidate, Endpoint
from smtpreuse.model.policy import Level
from smtpreuse.model.tlsfacts import TLSResult, TLSSettings


@frozen(kw_only=True)
class ReuseKey:
    """
    How a session was opened. Sessions of equal keys were opened in the same way, and only those stand in for each
    other; what they proved is a question for L{may_carry<smtpreuse.tls.carry.may_carry>}.

    @ivar service: the delivery service that opened it, C{smtp}.
    @ivar source: our own address where one is configured, else empty.
    @ivar helo: the name we gave in EHLO.
    @ivar settings: how TLS was to be made, or L{None} where it was not to be tried.
    """

    service: str
    source: str
    helo: str
    endpoint: Endpoint
    settings: TLSSettings | None


class Plaintext(Enum):
    """Why a session is not encrypted."""

    NOT_WANTED = "not wanted"
    NOT_OFFERED = "not offered"
    REFUSED = "refused"
    FAILED = "failed"


@frozen
class Via:
    """
    Who holds the TLS state of a session whose plaintext end is somewhere else.

    @ivar process: its process id.
    @ivar number: names the session there; unique while that process lives.
    """

    process: int
    number: int


@frozen(kw_only=True)
class SessionFacts:
    """
    What a session proved and offers.

    @ivar host: the MX host it was opened to.
    @ivar level: the level it was opened under.
    @ivar tls: what the handshake showed, or L{None} without TLS.
    @ivar plaintext: why there is no TLS, or L{None} with TLS.
    @ivar reusable: whether the policy it was opened under lets it serve more than one transaction.
    @ivar uses: transactions begun on it.
    @ivar opened: UNIX time of its connect.
    @ivar good_until: UNIX time after which it carries nothing any more.
    @ivar via: through whom its plaintext end leads, or L{None} while that is in the process of its TLS state.
    """

    host: str
    level: Level
    tls: TLSResult | None
    plaintext: Plaintext | None
    reusable: bool
    capabilities: Capabilities
    uses: int
    opened: float
    good_until: float
    via: Via | None = None

    @property
    def single(self) -> bool:
        """Whether it serves its one request and ends: a plaintext fallback, or reuse forbidden by its policy."""
        return self.plaintext in (Plaintext.REFUSED, Plaintext.FAILED) or not self.reusable


@frozen(kw_only=True)
class Needs:
    """
    What a request asks of the session that carries it.

    @ivar key: how a session for it would be opened at the endpoint in question.
    @ivar size: octets of its content.
    @ivar connection_reuse: whether its policy lets it ride on a TLS session that served another.
    """

    key: ReuseKey
    level: Level
    size: int = 0
    connection_reuse: bool = True


@frozen(kw_only=True)
class Carrier:
    """A lane's session, as the lane shows it when it asks for work."""

    key: ReuseKey
    facts: SessionFacts


@frozen(kw_only=True)
class Profile:
    """
    What is the same in all sessions that one delivery service opens.

    @ivar source: our own IPv4 address to connect from, or empty for the system's choice.
    @ivar source6: the same for IPv6.
    """

    service: str = "smtp"
    helo: str
    source: str = ""
    source6: str = ""

    def key(self, candidate: Candidate) -> ReuseKey:
        """The one place where keys are made: what is saved under a key is found under it."""
        policy = candidate.policy
        return ReuseKey(
            service=self.service,
            source=self.source6 if candidate.endpoint.ipv6 else self.source,
            helo=self.helo,
            endpoint=candidate.endpoint,
            settings=None if policy.level is Level.NONE else policy.settings,
        )

    def needs(self, candidate: Candidate, size: int) -> Needs:
        """What a message of this many octets asks of a session to this candidate."""
        policy = candidate.policy
        return Needs(
            key=self.key(candidate), level=policy.level, size=size, connection_reuse=policy.connection_reuse
        )
