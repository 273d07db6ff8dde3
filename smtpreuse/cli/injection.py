"""
Sends made-up mail over several connections, and counts what became of it. Plaintext only; every message carries an
C{X-Smtpreuse-Id} of its own.

It does not know where the numbers go. Source: RFC 5321, RFC 2920 (PIPELINING).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from smtpreuse.errors import SessionLost
from smtpreuse.model.reply import Reply
from smtpreuse.smtp.reply import ReplyParser

# A server that answers nothing for so long, in seconds, is given up: RFC 5321 section 4.5.3.2.6 allows ten minutes for
# the final reply, and no server that is worth measuring takes half of it.
PATIENCE = 300.0
# So many connections in a row that brought no message through end the attempt.
HOPELESS = 5


@frozen(kw_only=True)
class Mailing:
    """
    What to send.

    @ivar run: a name of this mailing that no other has.
    @ivar size: octets of each message's content, at least what its header needs.
    @ivar recipient: the recipients' pattern: C{%m} is the number of the message, C{%r} that of the recipient in it.
    """

    run: str
    messages: int
    size: int
    recipients: int
    sender: str
    recipient: str

    def envelope(self, number: int) -> list[str]:
        """The recipients of a message."""
        pattern = self.recipient.replace("%m", str(number))
        return [pattern.replace("%r", str(index)) for index in range(self.recipients)]

    def content(self, number: int) -> bytes:
        """The content of a message: lines of 72 characters, no line begins with a dot."""
        header = (
            f"From: <{self.sender}>\r\n"
            f"To: <{self.envelope(number)[0]}>\r\n"
            f"Subject: message {number}\r\n"
            f"Message-ID: <{self.run}.{number}@source.test>\r\n"
            f"X-Smtpreuse-Id: {self.run}.{number}\r\n"
            "\r\n"
        ).encode()
        line = b"x" * 70 + b"\r\n"
        lines, rest = divmod(max(0, self.size - len(header)), len(line))
        last = b"y" * (rest - 2) + b"\r\n" if rest >= 2 else b""
        return header + line * lines + last


@define
class Count:
    """
    What became of a mailing.

    @ivar sent: messages whose content went out whole.
    @ivar rejected: messages that the server refused, whatever the stage.
    @ivar unknown: messages whose content went out whole, and that have no answer yet.
    """

    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    unknown: int = 0


class Conversation(Protocol):
    """One connection to the server: commands out, replies in."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._waiting: Deferred[None] | None = None
        self._lost = ""
        self._patience: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """From now on the server has L{PATIENCE} for each of its replies."""
        self._patience = self._clock.callLater(PATIENCE, self._give_up, "no reply")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits any more."""
        self._lost = self._lost or "lost connection"
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._wake()

    def dataReceived(self, data: bytes) -> None:
        """Collect replies."""
        self._replies.extend(self._parser.feed(data))
        if self._parser.broken is not None:
            self._give_up(self._parser.broken)
            return
        if self._patience is not None:
            self._patience.reset(PATIENCE)
        self._wake()

    def send(self, octets: bytes) -> None:
        """To the server, without waiting."""
        assert self.transport is not None
        self.transport.write(octets)

    async def reply(self) -> Reply:
        """
        @return: the next reply.
        @raise SessionLost: when the connection ended before.
        """
        while not self._replies:
            if self._lost:
                raise SessionLost(self._lost)
            self._waiting = Deferred()
            await self._waiting
        return self._replies.popleft()

    def close(self) -> None:
        """End the connection."""
        assert self.transport is not None
        self.transport.loseConnection()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and (self._replies or self._lost):
            waiting.callback(None)
        else:
            self._waiting = waiting

    def _give_up(self, reason: str) -> None:
        self._lost = reason
        ITCPTransport(self.transport).abortConnection()


class Injection:
    """
    A mailing under way.

    @ivar problem: why a connection failed, the last one that did; or empty.
    @ivar refusal: the first reply that refused a message, or empty.
    @ivar on_accepted: called after each message that the server took.
    """

    def __init__(self, clock: IReactorTime, endpoint: IStreamClientEndpoint, mailing: Mailing) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._mailing = mailing
        self._todo = deque(range(mailing.messages))
        self.count = Count()
        self.problem = ""
        self.refusal = ""
        self.on_accepted: Callable[[], None] | None = None

    def complaints(self) -> list[str]:
        """What went wrong, for people."""
        refused = f"a message was refused: {self.refusal}" if self.refusal else ""
        return [complaint for complaint in (refused, self.problem) if complaint]

    async def send(self, connections: int) -> Count:
        """
        Send everything.

        @param connections: how many at a time.
        @return: what became of it; what is not in it could not be sent, and C{problem} says why.
        """
        lanes = [Deferred.fromCoroutine(self._lane()) for _ in range(min(connections, self._mailing.messages))]
        for lane in lanes:
            await lane
        return self.count

    async def _lane(self) -> None:
        fruitless = 0
        while self._todo and fruitless < HOPELESS:
            before = self.count.accepted + self.count.rejected
            try:
                conversation = await self._connect()
            except (ConnectError, OSError, ValueError) as error:  # no such host, or a name that none has
                self.problem = str(error)
                return
            try:
                await self._work(conversation)
            except SessionLost as error:
                self.problem = str(error)
            finally:
                conversation.close()
            fruitless = fruitless + 1 if self.count.accepted + self.count.rejected == before else 0

    async def _connect(self) -> Conversation:
        conversation = Conversation(self._clock)
        await connectProtocol(self._endpoint, conversation)
        return conversation

    async def _work(self, conversation: Conversation) -> None:
        """Greet, and send until there is nothing to do or the server wants no more on this connection."""
        greeting = await conversation.reply()
        if greeting.code != 220:
            raise SessionLost(f"the server greets with {greeting.code} {greeting.lines[-1]}")
        conversation.send(b"EHLO source.test\r\n")
        hello = await conversation.reply()
        pipelining = hello.code == 250 and any(line.upper() == "PIPELINING" for line in hello.lines[1:])
        if hello.code != 250:
            conversation.send(b"HELO source.test\r\n")
            await conversation.reply()
        while self._todo:
            number = self._todo.popleft()
            if not await self._transaction(conversation, number, pipelining):
                return
        conversation.send(b"QUIT\r\n")
        await conversation.reply()

    async def _transaction(self, conversation: Conversation, number: int, pipelining: bool) -> bool:
        """
        @return: whether the connection is good for another one.
        """
        commands = [b"MAIL FROM:<%s>\r\n" % self._mailing.sender.encode()]
        commands += [b"RCPT TO:<%s>\r\n" % recipient.encode() for recipient in self._mailing.envelope(number)]
        try:
            replies = await self._exchange(conversation, [*commands, b"DATA\r\n"], pipelining)
        except SessionLost:
            self._todo.appendleft(number)
            raise
        if replies[-1].code != 354:
            if any(reply.code == 421 for reply in replies):
                self._todo.appendleft(number)
                return False
            # The one that says why: those behind it only say that it is not their turn.
            self._refused(next(reply for reply in replies if reply.code >= 400))
            conversation.send(b"RSET\r\n")
            return (await conversation.reply()).code == 250
        conversation.send(self._mailing.content(number) + b".\r\n")
        self.count.sent += 1
        self.count.unknown += 1
        reply = await conversation.reply()
        self.count.unknown -= 1
        if reply.code == 250:
            self.count.accepted += 1
            if self.on_accepted is not None:
                self.on_accepted()
        else:
            self._refused(reply)
        return reply.code != 421

    def _refused(self, reply: Reply) -> None:
        self.count.rejected += 1
        self.refusal = self.refusal or f"{reply.code} {' '.join(reply.lines)}"

    async def _exchange(self, conversation: Conversation, commands: list[bytes], together: bool) -> list[Reply]:
        """The replies to these commands; commands behind a 421 are not sent where they go one by one."""
        replies: list[Reply] = []
        if together:
            conversation.send(b"".join(commands))
        for command in commands:
            if not together:
                conversation.send(command)
            replies.append(await conversation.reply())
            if replies[-1].code == 421:
                break
        return replies
