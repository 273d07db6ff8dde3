"""
One SMTP session as its lane sees it: commands go out, replies come back in order, every wait has its limit.

It knows nothing of messages, of queues, or of how the stream was made. The words of its errors are those of Postfix's
smtp(8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from smtpreuse.config.settings import Settings
from smtpreuse.errors import ProtocolError, SessionLost
from smtpreuse.interfaces import IStreamEnd, IStreamReceiver
from smtpreuse.model.nexthop import Candidate
from smtpreuse.model.reply import Reply
from smtpreuse.model.reuse import Carrier, ReuseKey, SessionFacts
from smtpreuse.smtp.client import Answer, Client, State, Verb

STAGES: Mapping[Verb, str] = {
    Verb.GREETING: "receiving the initial server greeting",
    Verb.EHLO: "performing the EHLO handshake",
    Verb.HELO: "performing the HELO handshake",
    Verb.STARTTLS: "receiving the STARTTLS response",
    Verb.MAIL: "sending MAIL FROM",
    Verb.RCPT: "sending RCPT TO",
    Verb.DATA: "sending DATA command",
    Verb.CONTENT: "sending end of data -- message may be sent more than once",
    Verb.RSET: "sending RSET",
    Verb.QUIT: "sending QUIT",
}
SENDING_BODY = "sending message body"


@frozen(kw_only=True)
class Limits:
    """
    How long each reply is waited for, in seconds, and the body's next piece.

    @ivar whole: whether a limit holds for the whole reply, or begins anew with each piece of it.
    """

    replies: Mapping[Verb, float]
    body: float
    whole: bool

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that main.cf sets."""
        return cls(
            replies={
                Verb.GREETING: settings.smtp_helo_timeout,
                Verb.EHLO: settings.smtp_helo_timeout,
                Verb.HELO: settings.smtp_helo_timeout,
                Verb.STARTTLS: settings.smtp_starttls_timeout,
                Verb.MAIL: settings.smtp_mail_timeout,
                Verb.RCPT: settings.smtp_rcpt_timeout,
                Verb.DATA: settings.smtp_data_init_timeout,
                Verb.CONTENT: settings.smtp_data_done_timeout,
                Verb.RSET: settings.smtp_rset_timeout,
                Verb.QUIT: settings.smtp_quit_timeout,
            },
            body=settings.smtp_data_xfer_timeout,
            whole=settings.smtp_per_request_deadline,
        )

    @property
    def shortest(self) -> float:
        """The least of all: a timer that looks this often is never late."""
        return min(self.body, *self.replies.values())


@implementer(IStreamReceiver)
class Session:
    """
    @ivar client: the grammar of the conversation.
    @ivar end: the stream; replaced by its plaintext end when TLS begins.
    @ivar lost: why the session is over, or L{None} while it lives.
    @ivar stray: the last reply that nobody had asked for.
    @ivar doubtful: whether its server may not know what it is to answer, and has not been heard since: it comes from a
        rest, or an envelope shared a flight. Its next reply has a limit of its own, that of RSET.
    @ivar hung_up: whether it was the peer that ended it.
    @ivar ours: whether it ended because a process of our own failed.
    """

    def __init__(self, end: IStreamEnd, client: Client, clock: IReactorTime, limits: Limits, relay: str) -> None:
        """
        @param relay: C{host[address]}, for the words of errors.
        """
        self.client = client
        self.end = end
        self.lost: SessionLost | None = None
        self.stray: Reply | None = None
        self.doubtful = False
        self.hung_up = False
        self.ours = False
        self.relay = relay
        self._clock = clock
        self._limits = limits
        self._shortest = limits.shortest
        self._answers: list[Answer] = []
        self._wanted = 0
        self._waiter: Deferred[None] | None = None
        self._deadline = 0.0
        self._limit = 0.0
        self._timer: IDelayedCall | None = None
        self._parted = False
        end.attach(self)

    def send(self, octets: bytes) -> None:
        """Write commands that the grammar has made."""
        self.end.write(octets)

    async def answers(self, count: int) -> list[Answer]:
        """
        Wait for replies.

        @return: as many as wanted; fewer when the session was lost meanwhile (C{lost} says why).
        """
        while len(self._answers) < count and self.lost is None:
            self._wanted = count
            await self._wait(self._reply_limit())
        taken, self._answers = self._answers[:count], self._answers[count:]
        return taken

    async def ask(self, command: Callable[[], bytes]) -> Reply:
        """
        Send one command and wait for its reply.

        @param command: of the grammar; called only where the session lives.
        @raise SessionLost: when it did not come.
        """
        if self.lost is not None:
            raise self.lost
        self.send(command())
        return await self.answer()

    async def answer(self) -> Reply:
        """
        Wait for one reply.

        @raise SessionLost: when it did not come.
        """
        answers = await self.answers(1)
        if not answers:
            assert self.lost is not None, "fewer answers than wanted only come from a lost session"
            raise self.lost
        return answers[0].reply

    async def room(self) -> None:
        """Wait until more of a body may be written, or the session is lost."""
        while self.end.full and self.lost is None:
            self._wanted = 0
            await self._wait(self._limits.body)

    def retire(self) -> None:
        """End the stream at once; nothing more is said."""
        self._finish("closed by us")
        if not self._parted:
            self.end.abort()

    def part(self) -> None:
        """Say QUIT where it may be said, unless it was, and close without waiting for the answer."""
        if self.lost is None and (not self.client.outstanding or self.client.awaiting is Verb.QUIT):
            if not self.client.outstanding:
                self.send(self.client.quit())
            self._parted = True
            self._finish("closed by us")
            self.end.close()
        else:
            self.retire()

    async def quit(self) -> None:
        """Say QUIT, and close when it is answered, the peer closes, or the limit is over."""
        if self.lost is not None:
            return
        try:
            self.send(self.client.quit())
        except ProtocolError:
            # In the middle of DATA or of content there is no polite word.
            self.retire()
            return
        await self.answers(self.client.outstanding)
        if self.lost is None:
            self._finish("closed by us")
            self.end.close()

    def leave(self) -> IStreamEnd:
        """Let go of the stream: it rests now, or goes to somebody else."""
        self._finish("left to rest")
        return self.end

    def fail(self, reason: str, stage: str | None = None) -> None:
        """
        The session cannot go on; whoever waits learns it.

        @param stage: what was going on, where the grammar does not know it any more.
        """
        if self.lost is None:
            self.lost = SessionLost(reason, self._stage() if stage is None else stage)
            self._finish(reason)
            self.end.abort()

    def _stage(self) -> str:
        """What is going on; empty between transactions."""
        if self.client.awaiting is not None:
            return STAGES[self.client.awaiting]
        return SENDING_BODY if self.client.state is State.CONTENT else ""

    # IStreamReceiver

    def received(self, data: bytes) -> None:
        stage = self._stage()
        answers = self.client.receive(data)
        if answers:
            self.doubtful = False
        for answer in answers:
            if answer.verb is None:
                self.stray = answer.reply
            else:
                self._answers.append(answer)
        if self.client.broken:
            self.fail(f"protocol error from {self.relay}: {self.client.broken}", stage)
        elif self._waiter is not None:
            if self._wanted and len(self._answers) >= self._wanted:
                self._wake()
            elif answers or not self._limits.whole:
                self._extend()

    def ended(self, reason: str, ours: bool = False) -> None:
        self.hung_up, self.ours = not ours, ours
        if ours:
            self.fail(f"lost connection with {self.relay} ({reason})")
            return
        # How a connection ended that TLS did not end tells nothing that "lost" does not.
        self.fail(f"lost connection with {self.relay}{f' ({reason})' if reason.startswith('TLS') else ''}")

    def drained(self) -> None:
        if self._waiter is not None and not self._wanted:
            self._wake()

    # Waiting

    async def _wait(self, limit: float) -> None:
        self._limit = limit
        self._deadline = self._clock.seconds() + limit
        if self._timer is None:
            self._arm(min(limit, self._shortest))
        self._waiter = Deferred()
        await self._waiter

    def _reply_limit(self) -> float:
        return self._limits.replies[Verb.RSET if self.doubtful else self.client.awaiting or Verb.QUIT]

    def _extend(self) -> None:
        if self.client.awaiting:
            self._limit = self._reply_limit()
        self._deadline = self._clock.seconds() + self._limit

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _arm(self, delay: float) -> None:
        self._timer = self._clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        left = self._deadline - self._clock.seconds()
        if left <= 0:
            self.fail(f"conversation with {self.relay} timed out")
        else:
            self._arm(min(left, self._shortest))

    def _finish(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.lost is None:
            self.lost = SessionLost(reason)
        self._wake()


class OpenSession:
    """
    A session ready for transactions: what it is, how it was opened, and what it proved.

    @ivar candidate: where it leads.
    @ivar destination: the nexthop of its last request: where it is looked for first when it rests; empty when only its
        endpoint is to lead to it.
    @ivar uses: transactions begun on it.
    @ivar reused_line: what the operator's log says at each reuse, once it was made.
    @ivar noted: whether it was told that 8-bit content goes to a server that does not offer to take it.
    @ivar unclean: whether a transaction may still be open on it, so that RSET must go before the next MAIL.
    @ivar spoilt: why it carries nothing after its present request, or empty.
    """

    def __init__(self, session: Session, candidate: Candidate, key: ReuseKey, facts: SessionFacts) -> None:
        self.session = session
        self.candidate = candidate
        self.key = key
        self.destination = ""
        self.uses = facts.uses
        self.reused_line = ""
        self.noted = False
        self.unclean = False
        self.spoilt = ""
        self._facts = facts
        self._carrier = Carrier(key=key, facts=facts)

    @property
    def facts(self) -> SessionFacts:
        """With the uses of now."""
        return self.carrier.facts

    @property
    def carrier(self) -> Carrier:
        """What the lane shows of it."""
        if self._carrier.facts.uses != self.uses:
            self._carrier = Carrier(key=self.key, facts=evolve(self._carrier.facts, uses=self.uses))
        return self._carrier

    @property
    def usable(self) -> bool:
        """Whether another transaction may be asked of it."""
        return self.session.lost is None and not self.spoilt and not self._facts.single
