"""
One mail transaction: MAIL to final reply, and what became of each recipient.

It knows the session and the request, and nothing of where either came from. Where the server has PIPELINING (RFC 2920)
MAIL, all RCPT and DATA are one group, and the next transaction's may go in the same flight as the content of this one
(section 3.1). Texts are those of Postfix's smtp(8).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from smtpreuse.agent.outcomes import Outcomes, Result, says_full
from smtpreuse.agent.session import STAGES, OpenSession
from smtpreuse.model.content import FileContent
from smtpreuse.model.delivery import Blame, DeliveryRequest, Ending
from smtpreuse.model.message import Body, Recipient
from smtpreuse.model.reply import Reply
from smtpreuse.smtp.client import Answer, Verb
from smtpreuse.smtp.content import LineBreaker, Stuffer, stuffed

_PIECE = 65536
_BEGINNING = (STAGES[Verb.RSET], STAGES[Verb.MAIL])

# Gives the transaction that is to follow in the same flight, or L{None}.
Following = Callable[[], Awaitable["Transaction | None"]]


class Transaction:
    """
    Carries one request over one session.

    @ivar use: which transaction of its session this is, from 1.
    @ivar follower: whose envelope went in the same flight as this one's content, or L{None}.
    @ivar dotted: whether the whole message was sent.
    """

    def __init__(
        self, open_session: OpenSession, request: DeliveryRequest, line_length_limit: int = 0,
        dotted: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        """
        @param line_length_limit: octets above which a line of content is broken, 0 for none.
        @param dotted: told of the request's ticket before the final dot is sent.
        """
        self._tell_dotted = dotted
        self._open = open_session
        self._session = open_session.session
        self._client = open_session.session.client
        self._request = request
        self._breaker = LineBreaker(line_length_limit) if line_length_limit else None
        open_session.uses += 1
        self.use = open_session.uses
        self.follower: Transaction | None = None
        self._reused = self.use > 1
        self._awaited: int | None = None
        self._behind = False
        self._outcomes = Outcomes(open_session, request)
        self._sending = False
        self._lost_place = False
        self.dotted = False

    async def run(self, following: Following | None = None) -> Result:
        """
        Carry it. The session's C{unclean} and C{spoilt} say afterwards what it is still good for; C{follower} is to be
        run next, or to be told that it is L{untouched}.

        @param following: asked when the content is about to go.
        """
        accepted = await self._envelope()
        if accepted is not None:
            await self._content(accepted, following)
        if self._client.broken:
            self._open.spoilt = self._client.broken
        if self.follower is None:
            self._open.unclean = not self._client.idle
        return self._outcomes.result(derailed=self._derailed())

    def begin_behind(self) -> bytes:
        """
        Begin it in the flight of the one before, on a session whose server has PIPELINING.

        @return: what is to be sent behind that one's content.
        """
        self._behind = True
        octets, self._awaited = self._first_group()
        return octets

    def untouched(self) -> Result:
        """
        What holds when the transaction before it in the flight came to a bad end: whatever is answered to this one may
        be about that one (the 503 of a server that has left its place, to take the plainest).
        """
        text = f"host {self._session.relay}: the message before it failed: {self._open.spoilt}"
        return self._all_untouched(text)

    def interrupted(self) -> Result:
        """What holds when a fault of our own stopped it: deferred, as trying at once would meet the same fault."""
        self._open.spoilt = "interrupted"
        ending = Ending.UNKNOWN if self.dotted else Ending.REFUSED
        text = "internal error while the message was being sent"
        self._outcomes.settle(self._request.recipients, ending, "4.3.0", text)
        self._outcomes.blame = Blame.OURSELVES
        return self._outcomes.result()

    def _all_untouched(self, text: str) -> Result:
        self._outcomes.settle(self._request.recipients, Ending.UNTOUCHED, "4.4.2", text)
        return self._outcomes.result()

    def _derailed(self) -> bool:
        broken = self.follower is not None and self._client.broken is not None
        closed = self._behind and self._session.lost is not None and not self.dotted
        return self._lost_place or broken or closed

    # The envelope

    async def _envelope(self) -> list[Recipient] | None:
        """
        @return: the recipients that the server accepted, when it waits for the content; else L{None}.
        """
        unclean = self._open.unclean
        if self._awaited is None:
            if self._over():
                return None
            octets, self._awaited = self._first_group()
            if octets:
                self._session.send(octets)
        if self._behind and self._client.awaiting is Verb.MAIL:
            # It may have been thrown away: a reply that does not come is not waited for as MAIL's are.
            self._session.doubtful = True
        answers = await self._session.answers(self._awaited)
        if unclean and not self._reset(answers):
            return None
        if self._open.facts.capabilities.pipelining:
            answers = answers[unclean:]
        else:
            answers = await self._one_by_one()
        if self._reused and self._out_of_step(answers):
            return None
        return self._judge(answers)

    def _first_group(self) -> tuple[bytes, int]:
        """
        @return: the octets of the first group of commands, and how many answers it will have.
        """
        client, request = self._client, self._request
        group = [client.rset()] if self._open.unclean else []
        if self._open.facts.capabilities.pipelining:
            group.append(client.mail(request.sender, self._parameters()))
            group.extend(client.rcpt(recipient.address) for recipient in request.recipients)
            group.append(client.data())
        return b"".join(group), len(group)

    def _out_of_step(self, answers: list[Answer]) -> bool:
        """
        Whether what answers the envelope may be about something else: a reply too many to the message before would
        answer this MAIL; and there are servers that throw away what has come when they answer a final dot, and then see
        the rest of an envelope that was in its flight, or nothing.
        """
        mail = answers[0].reply if answers else None
        if self._behind and len(answers) < (self._awaited or 0):
            if mail is not None and says_full(mail):
                return False
            self._gone()
            return True
        odd = mail
        if mail is not None and self._behind and any(each.reply.positive for each in answers[1:-1]):
            odd = answers[-1].reply
        if odd is None or not odd.syntactic:
            return False
        self._open.spoilt, self._lost_place = odd.text, self._behind
        self._all_untouched(f"host {self._session.relay} lost its place between two messages: {odd.text}")
        return True

    def _reset(self, answers: list[Answer]) -> bool:
        """
        Whether RSET ended what transaction may still have been open.

        @param answers: to it, and to what went with it.
        """
        if answers and answers[0].reply.positive:
            self._open.unclean = False
            return True
        if answers:
            # Whatever MAIL were answered now would say nothing of this message.
            reply = answers[0].reply
            self._outcomes.full = reply.code == 421
            self._open.spoilt = reply.text
            self._all_untouched(f"host {self._session.relay} said: {reply.text} (in reply to RSET)")
        self._gone()
        return False

    async def _one_by_one(self) -> list[Answer]:
        client, session, request = self._client, self._session, self._request
        session.send(client.mail(request.sender, self._parameters()))
        answers = await session.answers(1)
        if not answers or not answers[0].reply.positive:
            return answers
        some = False
        for recipient in request.recipients:
            if session.lost is not None:
                return answers
            session.send(client.rcpt(recipient.address))
            answer = await session.answers(1)
            answers += answer
            if not answer or answer[0].reply.code == 421:
                return answers
            some = some or answer[0].reply.positive
        if some and session.lost is None:
            session.send(client.data())
            answers += await session.answers(1)
        return answers

    def _parameters(self) -> str:
        capabilities, parameters = self._open.facts.capabilities, ""
        if capabilities.size is not None:
            parameters = f"SIZE={self._request.size}"
        if capabilities.eight_bit and self._request.body is not Body.UNKNOWN:
            parameters = f"{parameters} BODY={self._request.body.value}".lstrip()
        return parameters

    def _judge(self, answers: list[Answer]) -> list[Recipient] | None:
        """
        Settle what the replies to the envelope decide.

        @param answers: to MAIL, to each RCPT and to DATA, as far as they came.
        """
        mail = answers[0].reply if answers else None
        data = answers[-1].reply if answers and answers[-1].verb is Verb.DATA else None
        for answer in answers:
            if answer.reply.code == 421:
                self._open.spoilt = answer.reply.text
        waits = data is not None and data.intermediate
        if mail is None or not mail.positive:
            if mail is not None:
                self._outcomes.refuse(self._request.recipients, mail, Verb.MAIL)
            self._gone()
            return [] if waits else None
        accepted: list[Recipient] = []
        last: Reply | None = None
        for recipient, answer in zip(self._request.recipients, answers[1:], strict=False):
            last = answer.reply
            if last.positive:
                accepted.append(recipient)
            else:
                self._outcomes.refuse((recipient,), last, Verb.RCPT)
        if waits:
            return accepted
        if data is not None and (accepted or data.code == 421):
            # Where nobody was accepted a 503 is what DATA must be answered with, and no fault of the session.
            self._outcomes.refuse(accepted, data, Verb.DATA)
        elif last is not None and last.code == 421:
            self._outcomes.refuse(self._request.recipients, last, Verb.RCPT)
        self._gone()
        return None

    # The content

    async def _content(self, accepted: list[Recipient], following: Following | None) -> None:
        content = self._request.content
        if self._over():
            return
        self._sending = True
        if not accepted:
            # RFC 2920 section 3.1: the 354 came all the same, so an empty message must end it.
            rest = b".\r\n"
        elif isinstance(content, FileContent):
            rest = await self._stream(content)
        else:
            rest = stuffed(self._breaker.whole(content.octets) if self._breaker else content.octets)
        follower = await following() if following is not None and self._session.lost is None else None
        if self._over():
            return
        self._client.content()
        if follower is not None:
            rest += follower.begin_behind()
            self.follower = follower
        self.dotted = bool(accepted)
        if self.dotted and self._tell_dotted is not None:
            self._tell_dotted(self._request.ticket)
        self._session.send(rest)
        answers = await self._session.answers(1)
        if answers:
            self._final(accepted, answers[0].reply)
        else:
            self._gone()

    async def _stream(self, content: FileContent) -> bytes:
        """
        Send content until it is over, or the session is lost.

        @return: its end, the final dot included, which is not sent yet.
        """
        stuffer, breaker = Stuffer(), self._breaker
        with open(content.path, "rb") as file:
            while piece := file.read(_PIECE):
                self._session.send(stuffer.feed(breaker.feed(piece) if breaker else piece))
                await self._session.room()
                if self._session.lost is not None:
                    break
        rest = stuffer.feed(breaker.finish()) if breaker else b""
        return rest + stuffer.finish()

    def _final(self, accepted: list[Recipient], reply: Reply) -> None:
        if reply.positive:
            self._outcomes.settle(accepted, Ending.DELIVERED, reply.status, reply.text, reply)
        else:
            self._outcomes.refuse(accepted, reply, Verb.CONTENT)
            if accepted:
                self._open.spoilt = f"content was refused: {reply.text}"
        if reply.code == 421:
            self._open.spoilt = reply.text

    # A session that is lost

    def _over(self) -> bool:
        """Whether the session was lost; those without an outcome are settled then."""
        self._gone()
        return self._session.lost is not None

    def _gone(self) -> None:
        """Settle those that have no outcome because the session was lost, or because nobody was accepted."""
        lost = self._session.lost
        if lost is None:
            return
        self._open.spoilt = str(lost)
        unsettled = self._outcomes.unsettled
        if not unsettled:
            return
        stray = self._session.stray
        ours, status = self._session.ours, "4.4.2"
        if ours:
            status = "4.3.0"
        if self.dotted:
            ending, text = Ending.UNKNOWN, str(lost)
            self._lost_place = self.follower is not None
        elif self._sending and stray is not None and stray.code >= 400:
            # The server spoke before the content was over: that is its reply.
            self._outcomes.refuse(unsettled, stray, Verb.CONTENT)
            return
        else:
            ending, text = (Ending.UNTOUCHED if self._reused else Ending.REFUSED), str(lost)
            # A server that closes instead of taking another MAIL has a limit; one that stalls has a problem.
            self._outcomes.full = self._reused and self._session.hung_up and lost.stage in _BEGINNING
        fault = Blame.OURSELVES if ours else Blame.SITE
        self._outcomes.blame = Blame.NOBODY if ending is Ending.UNTOUCHED else fault
        self._outcomes.settle(unsettled, ending, status, text)
