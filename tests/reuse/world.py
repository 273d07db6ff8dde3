"""
The queue, the agent and the connection cache put together as the assembly does it, with servers that answer by
themselves and misbehave as a test tells them. What a request meets between its arrival and its end is all real but the
network, the spool and time.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.agent.connect import OpenFailed
from smtpreuse.agent.lane import Agent
from smtpreuse.agent.reuse import Finder, SearchRules
from smtpreuse.agent.session import OpenSession, Session
from smtpreuse.interfaces import IStreamReceiver
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.content import MemoryContent
from smtpreuse.model.nexthop import Candidate
from smtpreuse.model.policy import Level
from smtpreuse.model.reuse import Plaintext, SessionFacts
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.dispatch import Dispatcher
from smtpreuse.queue.hosts import HostMemory
from smtpreuse.queue.returns import Returns
from smtpreuse.queue.rules import DispatchRules
from smtpreuse.scache.rules import CacheRules
from smtpreuse.scache.service import ConnectionCache
from smtpreuse.smtp.client import Client
from tests.agent.world import PIPELINING, PROFILE, TLS, limits
from tests.fakes import FakeEnd, FakeLog, FakeRouter, FakeSpool
from tests.queue.world import RULES, START, message

CONNECT_TIMEOUT = 30.0
# What a server says to each command.
REPLIES = {
    "MAIL": "250 2.1.0 ok", "RCPT": "250 2.1.5 ok", "DATA": "354 go on", "RSET": "250 2.0.0 flushed",
    "QUIT": "221 2.0.0 bye", ".": "250 2.0.0 taken",
}  # fmt: skip
# In place of a reply.
CLOSE = "close"
SILENCE = ""


class Server(FakeEnd):
    """
    The server's side of one connection.

    @ivar commands: verbs, in order; C{.} for the end of a content.
    @ivar contents: what it was sent between DATA and the dot.
    @ivar writes: what it was sent, in the pieces in which it was.
    @ivar manners: what it says in place of L{REPLIES}: by verb, or by verb and how often that verb came, C{MAIL 2}.
    @ivar behind: what it does behind its reply to a verb, named likewise: says that, or closes.
    """

    def __init__(self, clock: Clock, candidate: Candidate, manners: dict[str, str], behind: dict[str, str]) -> None:
        super().__init__()
        self.candidate = candidate
        self.manners = manners
        self.behind = behind
        self.commands: list[str] = []
        self.contents: list[bytes] = []
        self.writes: list[bytes] = []
        self.ended = False
        self.half = ""
        self._clock = clock
        self._buffer = b""
        self._in_content = self._refused = False
        self._early = b""

    def attach(self, receiver: IStreamReceiver) -> None:
        super().attach(receiver)
        early, self._early = self._early, b""
        if early:
            receiver.received(early)
        if self.ended:
            receiver.ended("connection closed")

    def write(self, data: bytes) -> None:
        self._buffer += data
        self.writes.append(data)
        self._clock.callLater(0, self._work)

    def says(self, text: str) -> None:
        """It says something, or closes."""
        if self.ended or self.closed or self.aborted:
            return
        if text == CLOSE:
            self.ended = True
            self.hang_up()
        elif text == REPLIES["."] and self.half and self.receiver is not None:
            self.receiver.received(self.half.encode())
        elif text:
            self.say(text)

    def _work(self) -> None:
        while not self.ended:
            verb = self._next()
            if verb is None:
                return
            self.commands.append(verb)
            usual = REPLIES[verb]
            if verb in ("RCPT", "DATA") and self._refused:
                usual = "503 5.5.1 MAIL first"
            said = self.manners.get(f"{verb} {self.commands.count(verb)}", self.manners.get(verb, usual))
            if verb == "MAIL":
                self._refused = said[:1] in ("4", "5")
            if verb == "DATA" and said.startswith("354"):
                self._in_content = True
                # So that the end of an empty content is found like every other.
                self._buffer = b"\r\n" + self._buffer
            self.says(said)
            self.says(self.behind.get(f"{verb} {self.commands.count(verb)}", self.behind.get(verb, SILENCE)))

    def _next(self) -> str | None:
        end = b"\r\n.\r\n" if self._in_content else b"\r\n"
        found, ended, rest = self._buffer.partition(end)
        if not ended:
            return None
        self._buffer = rest
        if self._in_content:
            self._in_content = False
            self.contents.append(found[2:] + b"\r\n")
            return "."
        return found[:4].decode()


class Network:
    """
    Stands for the connector: opens a session to a new L{Server} each time.

    @ivar servers: all of them, in the order of their connections.
    @ivar tried: the host of each attempt.
    @ivar down: addresses whose packets go nowhere.
    @ivar capabilities: what every server offers.
    @ivar tls: whether servers offer STARTTLS.
    @ivar plaintext: why a session at C{may} is not encrypted though they do.
    @ivar lifetime: C{smtp_connection_reuse_time_limit}.
    @ivar manners: of the servers to come.
    @ivar behind: likewise.
    @ivar half: octets that every server says in place of the reply to content, when there are any.
    @ivar first: manners, and what is done behind replies, of the next server only.
    """

    def __init__(self, clock: Clock) -> None:
        self.servers: list[Server] = []
        self.tried: list[str] = []
        self.down: set[str] = set()
        self.capabilities = PIPELINING
        self.tls = True
        self.plaintext: Plaintext | None = None
        self.lifetime = 300.0
        self.manners: dict[str, str] = {}
        self.behind: dict[str, str] = {}
        self.half = ""
        self.first: tuple[dict[str, str], dict[str, str]] | None = None
        self._clock = clock

    async def open(self, candidate: Candidate, *, fall_back: bool) -> OpenSession:
        """See L{Connector.open<smtpreuse.agent.connect.Connector.open>}."""
        opened, policy = self._clock.seconds(), candidate.policy
        self.tried.append(candidate.host)
        if candidate.endpoint.address in self.down:
            await deferLater(self._clock, CONNECT_TIMEOUT)  # type: ignore[arg-type]  # a clock is all it needs
            raise OpenFailed("4.4.1", f"connect to {candidate.relay}: Connection timed out")
        await deferLater(self._clock, 0)  # type: ignore[arg-type]  # likewise
        why = self._why(policy.level)
        manners, behind = self.first or (self.manners, self.behind)
        self.first = None
        server = Server(self._clock, candidate, manners, behind)
        server.half = self.half
        self.servers.append(server)
        relay = f"{candidate.host}[{candidate.endpoint.address}]"
        facts = SessionFacts(
            host=candidate.host, level=policy.level, tls=TLS if why is None else None, plaintext=why,
            reusable=policy.connection_reuse or why is not None, capabilities=self.capabilities, uses=0,
            opened=opened, good_until=opened + self.lifetime,
        )  # fmt: skip
        return OpenSession(
            Session(server, Client.activated(), self._clock, limits(), relay), candidate, PROFILE.key(candidate), facts
        )

    def _why(self, level: Level) -> Plaintext | None:
        if level is Level.NONE:
            return Plaintext.NOT_WANTED
        if self.tls:
            return self.plaintext
        if level > Level.MAY:
            raise OpenFailed("4.7.4", "TLS is required, but was not offered")
        return Plaintext.NOT_OFFERED


class ReuseCase(SynchronousTestCase):
    """A service whose sessions always rest when they are not needed."""

    def setUp(self) -> None:
        self.build()

    def build(self, *, most_reuses: int = 0, idle_limit: float = 15.0, window: int = 5, **site: object) -> None:
        """One with these limits, and nothing in it."""
        self.clock = Clock()
        self.clock.advance(START)
        self.log = FakeLog()
        self.spool = FakeSpool(self.clock.seconds)
        self.router = FakeRouter()
        self.network = Network(self.clock)
        self.cache = ConnectionCache(
            self.clock, CacheRules(idle_limit=idle_limit, limit=100, limit_per_key=20, most_uses=most_reuses)
        )
        finder = Finder(
            self.cache, self.network, HostMemory(self.clock.seconds, 60.0), self.log, self.clock, Random(1),  # type: ignore[arg-type]  # stands for it
            SearchRules(profile=PROFILE, limits=limits(), fallback_age=300.0),
        )  # fmt: skip
        agent = Agent(finder, self.cache, self.log, self.clock, tls_loglevel=1, most_reuses=most_reuses)
        rules: DispatchRules = evolve(RULES, site=evolve(
            RULES.site, initial=window, limit=window, most_uses=most_reuses,
            **{"destinations": frozenset({"example.com", "example.test"}), **site},
        ))  # fmt: skip
        self.dispatcher = Dispatcher(
            self.spool, self.router, agent, self.cache, self.log, self.clock, rules,
            contents=ContentCache(100_000),
            returns=Returns(self.spool, self.router, self.log, self._id, "mail.example.com"), random=Random(1),
        )  # fmt: skip
        self.sent = 0
        self.dispatcher.start()

    def _id(self) -> str:
        return f"B{self.sent}"

    def send(self, *addresses: str, size: int = 7, sender: str = "from@example.org") -> str:
        """A message comes in; its queue id."""
        self.sent += 1
        queue_id = f"Q{self.sent}"
        content = MemoryContent(f"{queue_id}\r\n".encode())
        stored = Deferred.fromCoroutine(self.spool.append(message(
            queue_id, *addresses, arrived=self.clock.seconds(), size=size, sender=sender
        ), content))  # fmt: skip
        stored.addCallback(self.dispatcher.accepted, content)
        return queue_id

    def wait(self, seconds: float = 1.0) -> None:
        """Time passes."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def deliver(self, *addresses: str, size: int = 7) -> str:
        """A message comes in, and for a second nothing else happens; its queue id."""
        queue_id = self.send(*addresses, size=size)
        self.wait()
        return queue_id

    def two_sessions(self) -> None:
        """Two messages were carried at a time, over two sessions, which rest now; of two hosts each has one."""
        self.network.manners["."] = SILENCE
        self.send()
        self.until(lambda: bool(self.arrived()), 1.0)
        busy = self.network.servers[0].candidate.endpoint.address
        self.network.down = {busy} if any(
            each.endpoint.address != busy for each in self.router.routes.get("example.com", ())
        ) else set()  # fmt: skip
        self.send()
        self.until(lambda: len(self.arrived()) == 2, CONNECT_TIMEOUT + 5)
        del self.network.manners["."]
        self.network.down.clear()
        for server in self.network.servers:
            server.says(REPLIES["."])
        self.wait()
        self.assertEqual((self.connections(), self.cache.resting(None)), (2, 2))

    def until(self, true: Callable[[], bool], limit: float) -> float:
        """Wait until this is true; how many seconds it took."""
        begun = self.clock.seconds()
        while not true():
            self.assertLess(self.clock.seconds() - begun, limit, self.log.lines)
            self.clock.advance(0.05)
        return self.clock.seconds() - begun

    def status(self, queue_id: str) -> list[str]:
        """What the operator's log says of it: C{sent}, C{deferred}, C{bounced}."""
        lines = [line for line in self.log.having(f"{queue_id}: ") if " status=" in line]
        return [line.partition(" status=")[2].partition(" ")[0] for line in lines]

    def arrived(self) -> list[str]:
        """
        Queue ids of the contents that the servers took with 2xx or otherwise, in order of their connections; a lone dot
        brings none.
        """
        contents = [content.decode().split() for server in self.network.servers for content in server.contents]
        return [words[0] for words in contents if words]

    def all_sent(self) -> None:
        """Each message was sent, was tried once as far as anybody can see, and is gone."""
        for number in range(1, self.sent + 1):
            self.assertEqual(self.status(f"Q{number}"), ["sent"], self.log.lines)
        self.assertEqual(self.spool.messages, {})
        self.assertEqual({each.attempts for record in self.spool.records for each in record} - {0}, set())

    def connections(self) -> int:
        """How many were opened."""
        return len(self.network.servers)


def with_size(size: int) -> Capabilities:
    """What a server offers that takes no more than so many octets."""
    return evolve(PIPELINING, size=size)
