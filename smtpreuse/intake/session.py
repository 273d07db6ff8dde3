"""
What is done with one client's commands: who may relay, what limits there are, and that 250 is said when the spool has
the message and never before.

The grammar is L{smtpreuse.smtp.server}'s, the content is collected by L{smtpreuse.intake.arrival}. It does not know the
transport or its timer, where mail goes, or what the queue does with it. The replies are those of Postfix's smtpd(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpreuse.config.settings import Settings
from smtpreuse.errors import SpoolError, SpoolFull, TableError
from smtpreuse.intake.arrival import FULL, NOT_STORED, Arrival
from smtpreuse.intake.header import Dates, Trace, printable
from smtpreuse.intake.peer import Peer
from smtpreuse.intake.starttls import NOT_NOW
from smtpreuse.interfaces import IMailLog, IRouter, ISpool
from smtpreuse.model.content import Content
from smtpreuse.model.logline import established_from
from smtpreuse.model.message import Message, Recipient
from smtpreuse.model.queueid import QueueIds
from smtpreuse.model.tlsfacts import TLSResult
from smtpreuse.smtp.command import MailFrom, RcptTo
from smtpreuse.smtp.event import ContentEnd, ContentPart, DataBegun, Event, Hello, Quit, Reset, TLSBegun
from smtpreuse.smtp.order import Encryption, State
from smtpreuse.smtp.server import Server

_ENCRYPTION = {"none": Encryption.NONE, "may": Encryption.MAY, "encrypt": Encryption.MUST}
_STATUS = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}")


@frozen(kw_only=True)
class Services:
    """
    Whom intake works with.

    @ivar accepted: told of each message that the spool has, as stored.
    @ivar paused: why no mail is taken now, or L{None}.
    @ivar draining: whether the service is about to end.
    """

    spool: ISpool
    router: IRouter
    accepted: Callable[[Message, Content], None]
    maillog: IMailLog
    clock: IReactorTime
    ids: QueueIds
    paused: Callable[[], str | None]
    draining: Callable[[], bool]
    dates: Dates = field(factory=Dates)


class Session:
    """
    One client's session.

    @ivar machine: the grammar; octets are fed there.
    """

    _log = Logger()

    def __init__(
        self, services: Services, settings: Settings, peer: Peer, go_on: Callable[[], None],
        securable: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """
        @param go_on: called when a message was stored, or not, while C{work} was not under way: there is more to do.
        @param securable: whether the client can have TLS now. It begins its handshake when the replies are written.
        """
        self.machine = Server(
            settings.myhostname, settings.message_size_limit, settings.smtpd_junk_command_limit,
            _ENCRYPTION[settings.smtpd_tls_security_level],
        )  # fmt: skip
        self._services = services
        self._settings = settings
        self._peer = peer
        self._go_on = go_on
        self._securable = securable
        self._relays = peer.among(settings.mynetworks)
        self._hello = Hello("", False)
        self._arrival: Arrival | None = None
        self._working = False

    def work(self) -> bytes:
        """
        Do all that can be done now.

        @return: what there is to say, in one piece; empty when there is nothing.
        """
        self._working = True
        machine = self.machine
        while (event := machine.next()) is not None or self._parted():
            if event is not None:
                self._happened(event)
        self._working = False
        return machine.taken()

    def lost(self) -> None:
        """The client is gone without a word."""
        if self._arrival is not None or self.machine.waiting:
            self._log_end(f"lost connection after {self.machine.where}", "")
        self.abandon()

    def abandon(self) -> None:
        """The transaction under way, if any, came to nothing."""
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.discard()

    def part(self) -> None:
        """End the session because the service ends."""
        self.machine.close(f"421 4.3.2 {self._settings.myhostname} Service is shutting down")

    def secured(self, tls: TLSResult) -> None:
        """The client's handshake went through."""
        self.machine.secured()
        if self._settings.smtpd_tls_loglevel:
            self._services.maillog.write("smtpd", printable(established_from(str(self._peer), tls)))

    def not_secured(self, reason: str) -> None:
        """The client's handshake failed, and the session with it."""
        self._services.maillog.write("smtpd", printable(f"SSL_accept error from {self._peer}: {reason}"))
        self.machine.hang_up()

    def _parted(self) -> bool:
        """Between transactions, end the session when the service ends."""
        machine = self.machine
        if not self._services.draining() or self._arrival is not None or machine.waiting:
            return False
        if machine.state is State.CLOSED or machine.state is State.HANDSHAKE:
            return False
        self.part()
        return True

    def _happened(self, event: Event) -> None:
        match event:
            case RcptTo():
                self._rcpt(event.address)
            case MailFrom():
                self._mail(event)
            case DataBegun():
                self._data()
            case ContentPart():
                assert self._arrival is not None, "content outside of a transaction"
                self._arrival.take(event.octets)
            case ContentEnd():
                self._content(event)
            case Hello():
                self._hello = event
                self.abandon()
            case Reset():
                self.abandon()
            case TLSBegun():
                self._starttls()
            case Quit():
                if event.reason:
                    self._log_end(event.reason, event.detail)
                self.abandon()

    def _starttls(self) -> None:
        if not self._securable():
            self.machine.refuse(NOT_NOW)
            return
        # RFC 3207 section 4.2: nothing that the client said in plaintext counts any more.
        self.abandon()
        self._hello = Hello("", False)
        self.machine.accept()

    def _mail(self, mail: MailFrom) -> None:
        services = self._services
        if services.draining():
            self.part()
            return
        limit = self._settings.message_size_limit
        stopped = services.paused()
        if stopped is not None:
            self._reject("MAIL", f"452 4.3.1 {stopped}", None)
        elif limit and mail.size > limit:
            self._reject("MAIL", "552 5.3.4 Message size exceeds fixed limit", None)
        elif not services.spool.room(mail.size):
            self._reject("MAIL", FULL, None)
        else:
            sender = self._qualified(mail.sender) if mail.sender else ""
            if sender is not mail.sender:
                mail = evolve(mail, sender=sender)
            self._arrival = Arrival(mail, services.clock.seconds(), limit, services.spool)
            self.machine.accept()

    def _rcpt(self, given: str) -> None:
        arrival = self._arrival
        assert arrival is not None, "a recipient outside of a transaction"
        if not self._relays:
            self._reject("RCPT", f"554 5.7.1 <{given}>: Relay access denied", arrival, given)
            return
        address = self._qualified(given)
        if arrival.knows(address):
            self.machine.accept()
            return
        if len(arrival.recipients) >= self._settings.smtpd_recipient_limit:
            self._reject("RCPT", "452 4.5.3 Error: too many recipients", arrival, given)
            return
        try:
            hop = self._services.router.hop(address)
        except TableError as error:
            self._log.warn("recipient not looked up: address={text} reason={why}", text=address, why=str(error))
            self._reject("RCPT", f"451 4.3.0 <{given}>: Temporary lookup failure", arrival, given)
            return
        if hop.startswith("error:"):
            self._reject("RCPT", _routing_error(given, hop[6:]), arrival, given)
            return
        # As in Postfix's log: a change of case alone is no other address.
        original = given if given.lower() != address.lower() else ""
        arrival.add(Recipient(address=address, original=original, hop=hop))
        self.machine.accept()

    def _qualified(self, address: str) -> str:
        settings = self._settings
        # A quoted local part may hold an @, its domain cannot hold a quote.
        if not settings.append_at_myorigin or "@" in address.rpartition('"')[2]:
            return address
        return f"{address}@{settings.myorigin}"

    def _data(self) -> None:
        arrival, services, peer = self._arrival, self._services, self._peer
        assert arrival is not None, "content outside of a transaction"
        queue_id = services.ids.next()
        trace = Trace(
            helo=self._hello.name,
            host=peer.host,
            address=peer.address,
            by=self._settings.myhostname,
            esmtp=self._hello.esmtp,
            tls=self.machine.encryption is Encryption.ACTIVE,
            queue_id=queue_id,
            recipient=arrival.recipients[0].address if len(arrival.recipients) == 1 else "",
            date=services.dates.text(),
        )
        arrival.begin(queue_id, trace.field())
        self.machine.accept()

    def _content(self, end: ContentEnd) -> None:
        arrival, self._arrival = self._arrival, None
        assert arrival is not None, "content outside of a transaction"
        arrival.take(end.octets)
        if end.offence is not None:
            arrival.discard()
            self._reject("END-OF-MESSAGE", f"550 5.5.2 Error: {end.offence} received", arrival)
            return
        content = arrival.finish()
        if isinstance(content, str):
            arrival.discard()
            self._reject("END-OF-MESSAGE", content, arrival)
        else:
            Deferred.fromCoroutine(self._store(arrival, content))

    async def _store(self, arrival: Arrival, content: Content) -> None:
        """
        Give the message to the spool and say what came of it. The connection may be gone by then; the message is not.
        """
        message = arrival.message(content.size, str(self._peer))
        try:
            stored = await self._services.spool.append(message, content)
        except SpoolFull:
            self._not_stored(arrival, FULL)
        except SpoolError as error:
            self._log.error("message not stored: queue_id={id} reason={why}", id=message.queue_id, why=str(error))
            self._not_stored(arrival, NOT_STORED)
        except Exception:
            # A fault of ours: the client must not wait for ever, and keeps its message.
            self._log.failure("message not stored: queue_id={id}", id=message.queue_id)
            self._not_stored(arrival, NOT_STORED)
        else:
            self._stored(stored, content, arrival.header.message_id)
        if not self._working:
            self._go_on()

    def _stored(self, message: Message, content: Content, message_id: str) -> None:
        services = self._services
        if self.machine.waiting:
            self.machine.accept(f"250 2.0.0 Ok: queued as {message.queue_id}")
        try:
            services.maillog.write("smtpd", f"{message.queue_id}: client={message.client}")
            services.maillog.write("cleanup", f"{message.queue_id}: message-id={message_id or '<>'}")
            services.accepted(message, content)
        except Exception:
            # The message is in the queue: whatever is wrong with us now, its client is told so.
            self._log.failure("message stored, not told: queue_id={id}", id=message.queue_id)

    def _not_stored(self, arrival: Arrival, text: str) -> None:
        arrival.discard()
        if self.machine.waiting:
            self._reject("END-OF-MESSAGE", text, arrival)

    def _log_end(self, reason: str, detail: str) -> None:
        self._services.maillog.write("smtpd", printable(f"{reason} from {self._peer}{detail}"))

    def _reject(self, stage: str, text: str, arrival: Arrival | None, recipient: str = "") -> None:
        self.machine.refuse(text)
        sender = f" from=<{arrival.mail.sender}>" if arrival is not None else ""
        to = f" to=<{recipient}>" if recipient else ""
        hello = f"proto={'ESMTP' if self._hello.esmtp else 'SMTP'} helo=<{self._hello.name}>"
        line = f"NOQUEUE: reject: {stage} from {self._peer}: {text};{sender}{to} {hello}"
        self._services.maillog.write("smtpd", printable(line))


def _routing_error(recipient: str, text: str) -> str:
    """The reply for a recipient that routing sends to C{error:}, where Postfix's error(8) would bounce or defer it."""
    status, _, reason = text.strip().partition(" ")
    if not _STATUS.fullmatch(status):
        status, reason = "5.0.0", text.strip()
    code = "450" if status.startswith("4") else "550"
    return f"{code} {status} <{recipient}>: Recipient address rejected: {reason or 'undeliverable'}"
