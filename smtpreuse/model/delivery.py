"""
What the queue asks of an agent, and what the agent answers.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from smtpreuse.model.content import Content
from smtpreuse.model.message import Body, Recipient
from smtpreuse.model.nexthop import Endpoint
from smtpreuse.model.reply import Reply
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Route


@frozen(kw_only=True)
class DeliveryRequest:
    """
    One message, and those of its recipients that share a route.

    @ivar ticket: names it between queue and agent; unique while the service runs.
    @ivar arrived: UNIX time at which the message came in.
    @ivar activated: UNIX time at which it was taken up for delivery.
    @ivar tried: endpoints that it is not to be given to again in this attempt.
    @ivar fresh: whether only a new session will do, because a reused one failed it.
    """

    ticket: int
    queue_id: str
    sender: str
    recipients: tuple[Recipient, ...]
    size: int
    body: Body
    content: Content
    route: Route
    arrived: float
    activated: float
    tried: frozenset[Endpoint] = frozenset()
    fresh: bool = False


class Ending(Enum):
    """
    How a transaction ended for a recipient.

    C{DELIVERED}: the server took responsibility. C{REFUSED}: there is a reply, or a reason of our own, that says no.
    C{UNKNOWN}: the final dot was sent and its reply not seen: deferred, not retried elsewhere at once. C{UNTOUCHED}:
    nothing was decided: retried at once, no attempt counted.
    """

    DELIVERED = "delivered"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    UNTOUCHED = "untouched"


@frozen(kw_only=True)
class Outcome:
    """
    What became of one recipient.

    @ivar status: RFC 3463; its class decides: 2 sent, 4 deferred, 5 bounced.
    @ivar text: what the log shows in parentheses.
    @ivar reply: the server's, where one was the reason.
    """

    recipient: Recipient
    ending: Ending
    status: str
    text: str
    reply: Reply | None = None


class Blame(Enum):
    """
    Whose fault an unhappy end was: decides what the site's window learns.

    C{NOBODY}: an ordinary transaction. C{SITE}: connecting, greeting or handshake failed, or a session broke.
    C{THROTTLED}: the server asked to slow down. C{OURSELVES}: a fault of this service, the site learns nothing.
    """

    NOBODY = "nobody"
    SITE = "site"
    THROTTLED = "throttled"
    OURSELVES = "ourselves"


@frozen(kw_only=True)
class DeliveryReport:
    """
    The end of one request on one session, or of the search for one.

    @ivar outcomes: exactly one for each recipient of the request.
    @ivar relay: C{host[address]:port}, or C{none}.
    @ivar endpoint: where it ended, or L{None} when there was no session.
    @ivar uses: which transaction of its session this was, from 1; 0 without a session.
    @ivar opened: UNIX time of its session's connect; 0 without a session.
    @ivar started: UNIX time at which the agent took the request.
    @ivar ready: UNIX time of its MAIL command; of the failure where none was sent.
    @ivar finished: UNIX time of the last reply.
    @ivar full: whether its session took no further message: C{uses} counts this one.
    @ivar exhausted: whether no candidate is left to try.
    @ivar derailed: whether its session broke while it shared a flight with another request.
    @ivar process: id of the process that carried it, 0 for the one that asks.
    """

    ticket: int
    outcomes: tuple[Outcome, ...]
    relay: str = "none"
    endpoint: Endpoint | None = None
    uses: int = 0
    opened: float = 0.0
    started: float
    ready: float
    finished: float
    blame: Blame = Blame.NOBODY
    full: bool = False
    exhausted: bool = False
    derailed: bool = False
    process: int = 0


def untouched(request: DeliveryRequest, now: float) -> DeliveryReport:
    """
    The report of a request that was given to a lane and comes back as it was.

    @param now: UNIX time.
    """
    outcomes = tuple(
        Outcome(recipient=recipient, ending=Ending.UNTOUCHED, status="4.3.0", text="nothing was begun")
        for recipient in request.recipients
    )
    return DeliveryReport(ticket=request.ticket, outcomes=outcomes, started=now, ready=now, finished=now)


class Then(Enum):
    """What a lane is to do with its session when it was given nothing."""

    KEEP = "keep"
    SAVE = "save"
    QUIT = "quit"


@frozen(kw_only=True)
class Turn:
    """
    What the queue answers a lane that asks for work.

    @ivar requests: what to carry now; empty when there is nothing for this session.
    @ivar then: what to do with the session when C{requests} is empty.
    @ivar more: whether the site has requests that another session could carry.
    @ivar follow_after: of the requests beyond the first, the envelope may share a flight with the content before it
        when the session has been used more often than this; L{None} where none may.
    """

    requests: tuple[DeliveryRequest, ...] = ()
    then: Then = Then.KEEP
    more: bool = False
    follow_after: int | None = None


__all__ = [
    "Blame", "Carrier", "DeliveryReport", "DeliveryRequest", "Ending", "Outcome", "Then", "Turn", "untouched",
]
