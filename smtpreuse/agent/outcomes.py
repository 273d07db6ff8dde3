"""
What became of the recipients of one transaction, and what that says of its session and its site.

It reads replies and sends nothing. Texts are those of Postfix's smtp(8).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from smtpreuse.agent.session import OpenSession
from smtpreuse.model.delivery import Blame, DeliveryRequest, Ending, Outcome
from smtpreuse.model.message import Recipient
from smtpreuse.model.reply import Reply
from smtpreuse.smtp.client import Verb

_ASKED = {
    Verb.MAIL: "MAIL FROM command",
    Verb.RCPT: "RCPT TO command",
    Verb.DATA: "DATA command",
    Verb.CONTENT: "end of DATA command",
}
# Servers that end a connection after so many messages say so with various codes: Yahoo 451, Apple 450, others 452, 421.
_SESSION_FULL = re.compile(
    r"too many (messages|mails|emails|transactions)"
    r"|(messages?|mails?|transactions?)( count)? (limit )?per (session|connection)",
    re.IGNORECASE,
)


def says_full(reply: Reply) -> bool:
    """Whether this answer to MAIL says that the session has had its share of messages."""
    return reply.code == 421 or (reply.temporary and _SESSION_FULL.search(reply.text) is not None)


@frozen(kw_only=True)
class Result:
    """
    @ivar outcomes: one for each recipient of the request.
    @ivar full: whether the server would take no further message on this session, and nothing of this one.
    @ivar derailed: whether the session broke while this transaction shared a flight with another.
    """

    outcomes: tuple[Outcome, ...]
    blame: Blame
    full: bool = False
    derailed: bool = False


class Outcomes:
    """
    @ivar blame: whose fault the last unhappy end was.
    @ivar full: as in L{Result}.
    """

    def __init__(self, open_session: OpenSession, request: DeliveryRequest) -> None:
        """
        @param open_session: with this transaction counted among its uses.
        """
        self.blame = Blame.NOBODY
        self.full = False
        self._open = open_session
        self._reused = open_session.uses > 1
        self._recipients = request.recipients
        self._settled: dict[Recipient, Outcome] = {}

    @property
    def unsettled(self) -> list[Recipient]:
        """Recipients without an outcome."""
        return [recipient for recipient in self._recipients if recipient not in self._settled]

    def settle(
        self, recipients: Sequence[Recipient], ending: Ending, status: str, text: str, reply: Reply | None = None
    ) -> None:
        """Those of these recipients that have no outcome end like this."""
        for recipient in recipients:
            self._settled.setdefault(
                recipient, Outcome(recipient=recipient, ending=ending, status=status, text=text, reply=reply)
            )

    def refuse(self, recipients: Sequence[Recipient], reply: Reply, asked: Verb) -> None:
        """
        A reply refuses these recipients.

        @param asked: what it answers.
        """
        closing = reply.code == 421
        if closing or reply.syntactic:
            self._open.spoilt = reply.text
        if reply.throttling:
            self.blame = Blame.THROTTLED
        ending = Ending.REFUSED
        if self._reused and asked is not Verb.CONTENT:
            if closing or (asked is Verb.MAIL and says_full(reply)):
                # The session has had its share, not the message: it goes at once to another.
                self._open.spoilt, self.full, self.blame = reply.text, True, Blame.NOBODY
                ending = Ending.UNTOUCHED
            elif reply.code == 503:
                # Our order was right: the server has lost its place, or wants another EHLO first.
                ending = Ending.UNTOUCHED
        text = f"host {self._open.session.relay} said: {reply.text} (in reply to {_ASKED[asked]})"
        self.settle(recipients, ending, reply.status, text, reply)

    def result(self, *, derailed: bool = False) -> Result:
        """
        All of it; every recipient has its outcome by now.
        """
        outcomes = tuple(self._settled[recipient] for recipient in self._recipients)
        return Result(outcomes=outcomes, blame=self.blame, full=self.full, derailed=derailed)
