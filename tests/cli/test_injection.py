"""
Tests of L{smtpreuse.cli.injection}, against a server that follows a script.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpreuse.cli.injection import HOPELESS, PATIENCE, Count, Injection, Mailing

MAILING = Mailing(run="run", messages=2, size=400, recipients=1, sender="a@x.test", recipient="b%r@y.test")


class MailingTests(SynchronousTestCase):
    """What is sent has the size and the names that were asked for."""

    def test_size(self) -> None:
        """The content has the size asked for, or one octet less where CRLF did not fit."""
        for size in range(300, 460):
            self.assertIn(len(evolve(MAILING, size=size).content(1)), (size, size - 1), size)

    def test_least_size(self) -> None:
        """A message is not smaller than its header."""
        content = evolve(MAILING, size=1).content(1)
        self.assertTrue(content.endswith(b"\r\n\r\n"))

    def test_needs_no_stuffing(self) -> None:
        """No line of it begins with a dot, and it ends with a line end."""
        content = evolve(MAILING, size=5000).content(1)
        self.assertNotIn(b"\r\n.", content)
        self.assertTrue(content.endswith(b"\r\n"))

    def test_own_identity(self) -> None:
        """Each message has an identity of its own."""
        self.assertIn(b"X-Smtpreuse-Id: run.7\r\n", MAILING.content(7))
        self.assertIn(b"Message-ID: <run.7@source.test>\r\n", MAILING.content(7))

    def test_recipients(self) -> None:
        """The pattern is filled in for each recipient."""
        mailing = evolve(MAILING, recipients=2, recipient="%m-%r@d%m.test")
        self.assertEqual(mailing.envelope(3), ["3-0@d3.test", "3-1@d3.test"])


@implementer(ITCPTransport)
class Server(StringTransport):
    """
    The server's side of one connection: gives the scripted replies, one for each line or content that comes.
    """

    def __init__(self, script: list[str | None]) -> None:
        super().__init__()
        self.script = script
        self.heard: list[bytes] = []
        self.groups = 0
        self.protocol: Protocol | None = None
        self.closed = False
        self._content = False

    def begin(self, protocol: Protocol) -> None:
        """The connection is made."""
        self.protocol = protocol
        protocol.makeConnection(self)
        self._reply()

    def write(self, data: bytes) -> None:
        """The client sends."""
        self.groups += 1
        if self._content:
            self._content = False
            self.heard.append(data)
            self._reply()
            return
        for line in data.splitlines():
            self.heard.append(line)
            self._reply()

    def loseConnection(self) -> None:
        """The client closes."""
        self._end()

    def abortConnection(self) -> None:
        """The client gives up."""
        self._end()

    def _reply(self) -> None:
        if self.closed or not self.script:
            return
        reply = self.script.pop(0)
        if reply is None:
            self._end()
            return
        self._content = reply.startswith("354")
        assert self.protocol is not None
        self.protocol.dataReceived(reply.encode() + b"\r\n")

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.protocol is not None
            self.protocol.connectionLost(Failure(ConnectionDone()))


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Leads to one scripted server after the other; then connections are refused."""

    def __init__(self, *scripts: list[str | None]) -> None:
        self.servers = [Server(script) for script in scripts]
        self.reached: list[Server] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Protocol]:
        """Connect to the next."""
        if len(self.reached) == len(self.servers):
            return fail(ConnectionRefusedError("refused"))
        server = self.servers[len(self.reached)]
        self.reached.append(server)
        protocol = protocolFactory.buildProtocol(None)
        assert isinstance(protocol, Protocol)
        server.begin(protocol)
        return succeed(protocol)


HELLO: list[str | None] = ["220 hello", "250-server\r\n250 PIPELINING"]
GOOD: list[str | None] = ["250 ok", "250 ok", "354 go", "250 taken"]


class InjectionTests(SynchronousTestCase):
    """Every message is sent once, and what became of it is counted."""

    def setUp(self) -> None:
        self.clock = Clock()

    def inject(
        self, endpoint: Endpoint, mailing: Mailing = MAILING, watch: Callable[[], None] | None = None
    ) -> tuple[Count, str]:
        """Send it all; what became of it, and what went wrong."""
        injection = Injection(self.clock, endpoint, mailing)
        injection.on_accepted = watch
        count = self.successResultOf(Deferred.fromCoroutine(injection.send(1)))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return count, injection.problem

    def test_pipelined(self) -> None:
        """An envelope is one group where the server announces PIPELINING, and all goes over one connection."""
        endpoint = Endpoint([*HELLO, *GOOD, *GOOD, "221 bye"])
        count, problem = self.inject(endpoint)
        self.assertEqual((count, problem), (Count(sent=2, accepted=2), ""))
        (server,) = endpoint.reached
        self.assertEqual(server.groups, 6)
        self.assertEqual(server.heard[1:4], [b"MAIL FROM:<a@x.test>", b"RCPT TO:<b0@y.test>", b"DATA"])
        self.assertEqual(server.heard[4], MAILING.content(0) + b".\r\n")

    def test_one_by_one(self) -> None:
        """Without PIPELINING each command waits for the reply before, HELO included."""
        endpoint = Endpoint(["220 hello", "502 what?", "250 server", *GOOD, *GOOD, "221 bye"])
        count, _ = self.inject(endpoint)
        self.assertEqual(count, Count(sent=2, accepted=2))
        self.assertEqual(endpoint.reached[0].groups, 11)

    def test_tells_of_each(self) -> None:
        """Who wants to know is told of each message that was taken."""
        told: list[bool] = []
        refused = [*GOOD[:3], "550 no"]
        self.inject(Endpoint([*HELLO, *GOOD, *refused, "221 bye"]), watch=lambda: told.append(True))
        self.assertEqual(told, [True])

    def test_refused(self) -> None:
        """A refusal is counted at every stage, and the next message goes on the same connection."""
        envelope: list[str | None] = ["250 ok", "550 no", "554 nobody", "250 reset"]
        count, _ = self.inject(Endpoint([*HELLO, *envelope, *GOOD, "221 bye"]))
        self.assertEqual(count, Count(sent=1, accepted=1, rejected=1))
        count, _ = self.inject(Endpoint([*HELLO, "250 ok", "250 ok", "354 go", "452 full", *GOOD, "221 bye"]))
        self.assertEqual(count, Count(sent=2, accepted=1, rejected=1))

    def test_reason(self) -> None:
        """The first refusal is kept in its server's words, and not what a later command was answered because of it."""
        envelope: list[str | None] = ["250 ok", "550-5.7.1 not\r\n550 5.7.1 you", "503 nobody", "250 reset"]
        injection = Injection(self.clock, Endpoint([*HELLO, *envelope, *GOOD[:3], "452 full", "221 bye"]), MAILING)
        self.successResultOf(Deferred.fromCoroutine(injection.send(1)))
        self.assertEqual(injection.count.rejected, 2)
        self.assertEqual(injection.complaints(), ["a message was refused: 550 5.7.1 not 5.7.1 you"])

    def test_enough_on_this_connection(self) -> None:
        """A message whose envelope was answered 421 goes over the next connection."""
        endpoint = Endpoint([*HELLO, *GOOD, "421 enough"], [*HELLO, *GOOD, "221 bye"])
        count, _ = self.inject(endpoint)
        self.assertEqual(count, Count(sent=2, accepted=2))
        self.assertEqual(len(endpoint.reached), 2)

    def test_421_after_the_content(self) -> None:
        """421 as the final reply refuses the message and ends the connection."""
        endpoint = Endpoint([*HELLO, *GOOD[:3], "421 enough"], [*HELLO, *GOOD, "221 bye"])
        count, _ = self.inject(endpoint)
        self.assertEqual(count, Count(sent=2, accepted=1, rejected=1))

    def test_lost_before_content(self) -> None:
        """A message whose content was not sent when the connection ended is sent again."""
        endpoint = Endpoint([*HELLO, "250 ok", None], [*HELLO, *GOOD, *GOOD, "221 bye"])
        count, problem = self.inject(endpoint)
        self.assertEqual((count, problem), (Count(sent=2, accepted=2), "lost connection"))

    def test_lost_before_the_final_reply(self) -> None:
        """What became of a message is unknown when the connection ended behind its content: it is not sent again."""
        endpoint = Endpoint([*HELLO, *GOOD[:3], None], [*HELLO, *GOOD, "221 bye"])
        count, _ = self.inject(endpoint)
        self.assertEqual(count, Count(sent=2, accepted=1, unknown=1))

    def test_not_welcome(self) -> None:
        """A server that turns away one connection after the other is given up."""
        endpoint = Endpoint(*(["554 go away"] for _ in range(HOPELESS + 1)))
        count, problem = self.inject(endpoint)
        self.assertEqual((count, problem), (Count(), "the server greets with 554 go away"))
        self.assertEqual(len(endpoint.reached), HOPELESS)

    def test_nobody_there(self) -> None:
        """A refused connection ends the attempt."""
        count, problem = self.inject(Endpoint())
        self.assertEqual(count, Count())
        self.assertIn("refused", problem)

    def test_no_such_host(self) -> None:
        """A name that leads nowhere ends it too, and so does one that no host can have."""
        for error in (DNSLookupError("no such host"), ValueError("no name")):
            endpoint = Endpoint()
            endpoint.connect = lambda factory, error=error: fail(error)  # type: ignore[method-assign]
            count, problem = self.inject(endpoint)
            self.assertEqual(count, Count())
            self.assertIn("no", problem)

    def test_nonsense(self) -> None:
        """A server that does not speak SMTP is not believed."""
        count, problem = self.inject(Endpoint(["HTTP/1.1 400 Bad Request"]))
        self.assertEqual(count, Count())
        self.assertTrue(problem)

    def test_silence(self) -> None:
        """A server that says nothing any more is given up."""
        endpoint = Endpoint([*HELLO, "250 ok"])
        injection = Injection(self.clock, endpoint, MAILING)
        sending = Deferred.fromCoroutine(injection.send(1))
        self.clock.advance(PATIENCE - 1)
        self.assertNoResult(sending)
        self.clock.advance(1)
        self.successResultOf(sending)
        self.assertTrue(endpoint.reached[0].closed)
