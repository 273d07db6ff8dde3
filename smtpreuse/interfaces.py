"""
The seams of the house. Each has a local body, and may have a remote one behind a process border; who stands behind
which is decided in C{roles.assembly} alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from smtpreuse.model.content import Content
from smtpreuse.model.delivery import DeliveryReport, DeliveryRequest, Turn
from smtpreuse.model.message import Message
from smtpreuse.model.nexthop import Endpoint, Nexthop
from smtpreuse.model.queueview import Committed, Counters, ProcessRow, QueuePage, QueueRow, Recorded, SessionRow
from smtpreuse.model.records import AddressAnswer, MXAnswer
from smtpreuse.model.reuse import Carrier, Needs, ReuseKey, SessionFacts
from smtpreuse.model.route import Route, Site
from smtpreuse.model.tlsfacts import TLSResult, TLSSettings

if TYPE_CHECKING:
    from smtpreuse.ipc.descriptor import Descriptor


class IStreamReceiver(Interface):
    """Who takes what a stream end brings."""

    def received(data: bytes) -> None:
        """Octets came."""

    def ended(reason: str, ours: bool = False) -> None:
        """
        The stream is over; nothing follows.

        @param reason: for people.
        @param ours: whether a process of our own failed, which says nothing of the peer.
        """

    def drained() -> None:
        """What was written has left our buffers after they were full."""


class IStreamEnd(Interface):
    """
    Our end of one byte stream: a network end before TLS, a plaintext end behind it. It has one receiver at a time.
    """

    full = Attribute("Whether our buffers are full: C{drained} will be called when it is worth writing again.")
    via = Attribute("The L{Via} that leads to its TLS state in another process; after C{detach}, from there.")

    def attach(receiver: IStreamReceiver) -> None:
        """From now on all that comes goes to this receiver; the one before gets nothing any more."""

    def write(data: bytes) -> None:
        """Send octets, in order; after the end it does nothing."""

    def pause() -> None:
        """Read nothing until C{resume}; but what was read already may still come."""

    def resume() -> None:
        """Read again."""

    def close() -> None:
        """Send what was written, then end in an orderly manner."""

    def abort() -> None:
        """End at once; what was written may be lost."""

    def detach() -> Descriptor:
        """
        Give the stream away as a descriptor: the receiver hears nothing any more, and this end must not be used again.

        @raise SessionLost: when the stream has ended already, or octets came that nobody took.
        """


class ITLSProxy(Interface):
    """Makes TLS on a network end and gives back its plaintext end; knows no policy."""

    async def start(
        network_end: Descriptor, settings: TLSSettings, timeout: float
    ) -> tuple[TLSResult, IStreamEnd | None]:
        """
        Take the descriptor over and do the handshake.

        @param timeout: seconds for the handshake.
        @return: the result, and the plaintext end, L{None} when the handshake failed (C{result.error} says why; the
            connection is closed then).
        """


class IConnectionCache(Interface):
    """Keeps sessions at rest: watches them, and ends them with QUIT when their time has come."""

    async def save(destination: str, site: Site, key: ReuseKey, facts: SessionFacts, end: IStreamEnd) -> None:
        """
        Take a session over, to be found by destination, unless that is empty, and by endpoint. What arrives on it
        while it rests ends it.
        """

    async def find_destination(
        destination: str, needs: Sequence[Needs]
    ) -> tuple[ReuseKey, SessionFacts, IStreamEnd] | None:
        """
        Take out a session that served this destination before and may carry one of these needs.

        @param needs: one for each candidate in question; their keys differ by endpoint.
        """

    async def find_endpoint(needs: Needs) -> tuple[ReuseKey, SessionFacts, IStreamEnd] | None:
        """Take out a session opened with exactly C{needs.key} that may carry them."""

    async def drop(site: Site | None, keep: int) -> None:
        """End the least useful sessions of a site (of all sites) with QUIT until at most C{keep} of it rest."""


class IResting(Interface):
    """The sessions at rest as the queue sees them, wherever they are: they count for the limits of their sites."""

    def resting(site: Site | None) -> int:
        """How many sessions of this site (of all sites) rest now."""

    async def drop(site: Site | None, keep: int) -> None:
        """As L{IConnectionCache.drop}."""


class ILane(Interface):
    """The queue's side of a lane: gives work of one site, takes reports."""

    site = Attribute("The L{Site} whose work it gives.")
    keep = Attribute("How many sessions of the site may rest beside this lane's before it opens a new one.")
    held = Attribute("Whether no transaction may begin now: a request whose session was long in coming goes back.")

    async def next(carrier: Carrier | None, most: int) -> Turn:
        """
        The oldest due requests that this session may carry; without a session, the oldest due.

        @param carrier: the lane's session, or L{None} when it has none.
        @param most: at most so many requests; fewer where they are better given to other lanes.
        """

    async def follow(carrier: Carrier) -> DeliveryRequest | None:
        """
        A request whose envelope may go in the same flight as the content that the session is about to carry: one that
        is due now, or L{None}. Of its site's limits more is asked than C{next} asks.

        @param carrier: the lane's session, its present use counted.
        """

    def dotted(ticket: int) -> None:
        """The whole message of this request is about to leave: until it is reported its end is unknown."""

    def report(report: DeliveryReport) -> None:
        """A request ended."""

    def over(reason: str) -> None:
        """The lane is finished; nothing follows."""


class IDeliveryAgent(Interface):
    """Works lanes."""

    def work(lane: ILane) -> None:
        """Begin to work this lane; it ends with C{lane.over}. A fault of ours never leaves a request unreported."""


class IHostMemory(Interface):
    """What is remembered of endpoints that failed to connect, shared by all lanes."""

    def order(endpoints: Sequence[Endpoint]) -> list[int]:
        """Indexes of these endpoints in the order of trial: those that failed lately go last."""

    def failed(endpoint: Endpoint) -> None:
        """Connecting, greeting or handshake failed."""

    def answered(endpoint: Endpoint) -> None:
        """It answered: forget that it failed."""


class IRouter(Interface):
    """Where mail goes."""

    def hop(recipient: str) -> str:
        """
        The C{transport:nexthop} for a recipient by configuration alone: C{smtp:example.com}, C{discard:}, C{hold:},
        C{error:5.1.1 text}. An address that cannot be routed gives C{error:}.

        @raise TableError: when a table cannot be asked.
        """

    async def route(nexthop: Nexthop) -> Route:
        """
        Resolve a nexthop.

        @raise RouteError: with the status to defer or to bounce with.
        """


class IResolver(Interface):
    """Asks the domain name system; caches by TTL; equal questions in flight are one."""

    async def mx(domain: str) -> MXAnswer:
        """
        @raise NoSuchName: NXDOMAIN.
        @raise NoSuchRecords: NODATA.
        @raise DNSError: anything else; its C{temporary} says whether to ask again later.
        """

    async def addresses(host: str, ipv6: bool) -> AddressAnswer:
        """
        A records, or AAAA records with C{ipv6}; aliases are followed.

        @raise NoSuchName: NXDOMAIN.
        @raise NoSuchRecords: NODATA.
        @raise DNSError: anything else.
        """


class ISpool(Interface):
    """The durable queue."""

    def scratch() -> str:
        """The path of a new file for content too large for memory; it goes with the next start if unused."""

    def room(octets: int) -> bool:
        """
        Whether so much more content may be taken and there is space left in which outcomes and deletes fit. It looks
        anew each time, and never blocks: intake asks while content comes in.
        """

    async def append(message: Message, content: Content) -> Message:
        """
        Store a message; when this returns it is on disk.

        @return: the message as stored: its recipients have their rows.
        @raise SpoolFull: when free space does not allow for it.
        @raise SpoolError: when it could not be stored; nothing of it is in the queue then.
        """

    async def nexthops(since: float, until: float, after: str, limit: int) -> list[str]:
        """
        Hops that have recipients whose next attempt is later than C{since} and not later than C{until} (UNIX times), in
        ascending order behind C{after}, at most C{limit}.
        """

    async def due(hop: str, limit: int, until: float, skip: Set[int]) -> list[Message]:
        """
        The oldest due messages for a hop, each with all of its recipients that are due there, as one transaction may
        carry them; none whose row is in C{skip}. With C{limit} recipients in all no further message is begun.
        """

    async def content(queue_id: str) -> Content:
        """
        @raise SpoolError: when it is not there or cannot be read; the message is in corrupt then.
        """

    async def record(done: Sequence[Recorded], new: Sequence[tuple[Message, Content]]) -> Committed:
        """
        Record what became of recipients, and new messages (bounces) that follow from it, in one transaction.

        @return: the new messages as stored, and the messages that left the queue.
        @raise SpoolError: when it could not be recorded; then nothing of it was.
        """


class IQueueDesk(Interface):
    """The operator's view of the queue, in pages."""

    async def page(after: str, limit: int) -> QueuePage:
        """Messages behind this queue id in ascending order, at most C{limit}."""

    async def show(queue_id: str) -> QueueRow | None:
        """One message, with the header of its content; L{None} when there is none of this id."""

    async def flush(site: str | None) -> int:
        """
        Make all deferred recipients (of this recipient domain or nexthop) due now, of the messages that are there now;
        how many messages changed.
        """

    async def delete(
        queue_ids: Sequence[str] | None, skip: Callable[[], Set[str]], gone: Callable[[Sequence[str]], None]
    ) -> int:
        """
        Delete these messages; for L{None} all that are there now.

        @param skip: asked before each piece for the queue ids that are to stay.
        @param gone: told of the queue ids of each piece, when they are.
        @return: how many were deleted.
        """

    async def counts() -> dict[str, int]:
        """Messages in C{incoming} (no attempt yet), C{deferred}, C{hold} and C{corrupt}."""


class IMailLog(Interface):
    """The operator's log."""

    def write(program: str, text: str, process: int = 0) -> None:
        """
        One line.

        @param program: the part behind C{smtpreuse/} (C{smtp}, C{qmgr}).
        @param process: id of the process that it is about, 0 for this one.
        """


class IServiceControl(Interface):
    """What the operator has the running service do."""

    async def reload() -> list[str]:
        """
        Read the configuration again, and go by it.

        @return: the parameters that have changed and take effect at the next start only.
        @raise ConfigurationError: with all that is wrong with it; nothing has changed then.
        @raise ServiceEnding: when the service is about to end; nothing has changed then.
        """

    def drain() -> float:
        """
        Take nothing more, let what is under way end, and end.

        @return: for how many seconds at most transactions may go on.
        """


class IServiceView(Interface):
    """The running service, as its operator's tools see it."""

    def active() -> Set[str]:
        """Queue ids of the messages that are taken up for delivery now."""

    def in_flight() -> Set[str]:
        """Queue ids of the messages that a transaction may be carrying now."""

    async def sessions() -> list[SessionRow]:
        """Every session that is connecting, busy or resting, in any process."""

    def processes() -> list[ProcessRow]:
        """The other processes of the service."""

    def counters() -> Counters:
        """What was done since the start."""

    def draining() -> bool:
        """Whether the service is about to end."""

    def deleted(queue_ids: Sequence[str]) -> None:
        """These messages are gone from the queue."""

    def flushed() -> None:
        """Anything in the queue may be due now."""
