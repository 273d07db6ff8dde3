"""
What our processes ask and tell each other: the verbs, and the values that they bring.

Whoever changes a verb or a value that crosses here raises C{VERSION}: processes of different versions do not work
together, which happens when a package is replaced under a running service.
"""

from __future__ import annotations

from types import NoneType

from attrs import frozen

from smtpreuse.ipc.verb import Verb
from smtpreuse.model.delivery import DeliveryReport
from smtpreuse.model.nexthop import Endpoint
from smtpreuse.model.queueview import SessionRow
from smtpreuse.model.reuse import Carrier, Needs, ReuseKey, SessionFacts
from smtpreuse.model.route import Site
from smtpreuse.model.tlsfacts import TLSResult, TLSSettings

VERSION = 1

# Between the main process and each of its children


@frozen(kw_only=True)
class Hello:
    """
    The first word of a child.

    @ivar release: of the package, beside the version of this protocol.
    """

    version: int
    release: str
    role: str
    number: int
    process: int


@frozen(kw_only=True)
class Meeting:
    """
    Another process, to which a link comes with this.

    @ivar holds_tls: whether it may be asked why a bridge ended.
    """

    role: str
    number: int
    process: int
    holds_tls: bool


@frozen(kw_only=True)
class Load:
    """
    The answer to a beat.

    @ivar sessions: that it has now.
    """

    sessions: int


HELLO = Verb("hello", Hello, bytes)
"""The answer are the rules of its role."""
RULES = Verb("rules", bytes, NoneType)
"""Rules that hold from now on."""
MEET = Verb("meet", Meeting, NoneType, descriptors=1)
BEAT = Verb("beat", NoneType, Load)
EVENT = Verb("event", str, NoneType)
"""An event of the log, as JSON: all of them are written by the main process."""
RETIRE = Verb("retire", NoneType, NoneType)
"""To a TLS proxy: take no new session, tell the others, and end with the last one."""
END = Verb("end", NoneType, NoneType)
"""End in good order: sessions at rest are told QUIT."""
SESSIONS = Verb("sessions", int, tuple[SessionRow, ...])
"""The sessions that it has from this place on, at most C{SESSIONS_PAGE} of them."""
SESSIONS_PAGE = 100

# The lanes of an agent


@frozen(kw_only=True)
class Work:
    """The main process gives an agent a lane."""

    lane: int
    site: Site


@frozen(kw_only=True)
class Wanted:
    """
    A lane asks for its next requests.

    @ivar carrier: its session where it has another one than when it asked last; else L{None}.
    @ivar uses: of its session; 0 where it has none.
    """

    lane: int
    carrier: Carrier | None
    uses: int


@frozen(kw_only=True)
class Told:
    """
    What an agent has to say of one of its lanes, in this order.

    @ivar lines: for the operator's log: program and text.
    @ivar over: why the lane is over, or L{None} while it is not.
    """

    lane: int
    lines: tuple[tuple[str, str], ...] = ()
    report: DeliveryReport | None = None
    over: str | None = None


@frozen(kw_only=True)
class News:
    """What an agent has to say, and then what its lanes want."""

    told: tuple[Told, ...]
    wanted: tuple[Wanted, ...]


@frozen(kw_only=True)
class HostNews:
    """An endpoint failed, or it answered after it had."""

    endpoint: Endpoint
    failed: bool


WORK = Verb("work", Work, NoneType)
GIVEN = Verb("given", bytes, NoneType)
"""Batches, as L{smtpreuse.ipc.batch} writes them."""
GIVEN_FILE = Verb("given file", bytes, NoneType, descriptors=1)
"""A batch of one request, whose content is in the file that comes with it."""
NEWS = Verb("news", News, NoneType)
HOLD = Verb("hold", dict[int, bool], NoneType)
"""Of lanes: whether nothing may begin there now."""
ABORT = Verb("abort", NoneType, NoneType)
"""End all sessions of lanes; what they carry is reported as it stands."""
HOST = Verb("host", HostNews, NoneType)

# The connection cache


@frozen(kw_only=True)
class Saved:
    """A session that is to rest; its plaintext end comes with it."""

    destination: str
    site: Site
    key: ReuseKey
    facts: SessionFacts


@frozen(kw_only=True)
class Find:
    """
    A session is looked for.

    @ivar ticket: names the question; unique for who asks.
    @ivar destination: empty to look for C{needs}' endpoint alone.
    """

    ticket: int
    destination: str
    needs: tuple[Needs, ...]


@frozen(kw_only=True)
class Here:
    """A session that was found; its plaintext end comes with it."""

    ticket: int
    key: ReuseKey
    facts: SessionFacts


@frozen(kw_only=True)
class Drop:
    """As L{IConnectionCache.drop<smtpreuse.interfaces.IConnectionCache.drop>}."""

    site: Site | None
    keep: int


SAVE = Verb("save", Saved, NoneType, descriptors=1)
FIND = Verb("find", Find, NoneType)
HERE = Verb("here", Here, NoneType, descriptors=1)
NOT_HERE = Verb("not here", int, NoneType)
DROP = Verb("drop", Drop, NoneType)
COUNTED = Verb("counted", dict[str, int], NoneType)
"""How many sessions of these sites rest now."""

# The TLS proxy


@frozen(kw_only=True)
class Start:
    """A handshake is to be done on the network end that comes with this."""

    ticket: int
    settings: TLSSettings
    timeout: float


@frozen(kw_only=True)
class Started:
    """
    How a handshake ended; where it did well the plaintext end comes with this.

    @ivar number: of the session in the proxy.
    """

    ticket: int
    result: TLSResult
    number: int = 0


START = Verb("start", Start, NoneType, descriptors=1)
STARTED = Verb("started", Started, NoneType, descriptors=1)
NOT_STARTED = Verb("not started", Started, NoneType)
WHY = Verb("why", int, str)
"""Why the bridge of this number ended; empty where it did not."""
RETIRING = Verb("retiring", int, NoneType)
"""The process of this id takes no further message on the sessions that lead through it."""
