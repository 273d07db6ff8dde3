"""
What a server may do to a session that rests or is reused, and what follows for the mail: for most of it, nothing.
"""

from __future__ import annotations

from smtpreuse.smtp.client import Verb
from tests.agent.world import TIMEOUTS
from tests.reuse.world import CLOSE, SILENCE, ReuseCase, Server

RSET_TIMEOUT = TIMEOUTS[Verb.RSET]


class RestingSessionTests(ReuseCase):
    """A session that its server ended or spoiled while it rested is dropped on sight: no request sees it."""

    def rested(self, said: str) -> Server:
        """A session carries a message, rests, and then its server says this; the next message gets another."""
        self.build()
        self.deliver()
        self.assertEqual((self.connections(), self.cache.resting(None)), (1, 1))
        (server,) = self.network.servers
        server.says(said)
        self.assertEqual(self.cache.resting(None), 0)
        self.deliver()
        self.all_sent()
        self.assertEqual(self.connections(), 2)
        # Not even QUIT goes to it.
        self.assertEqual(server.commands, ["MAIL", "RCPT", "DATA", "."])
        return server

    def test_closed_while_it_rested(self) -> None:
        """FIN or RST."""
        self.rested(CLOSE)

    def test_421_while_it_rested(self) -> None:
        """421, with or without a close behind it."""
        server = self.rested("421 4.4.2 idle for too long")
        server.says(CLOSE)
        self.wait()

    def test_idle_time_is_learned(self) -> None:
        """A server that ends sessions after the same rest twice: the next one is told QUIT before that."""
        for number in (1, 2):
            self.deliver()
            self.wait(5.0)
            self.network.servers[-1].says("421 4.4.2 idle for too long")
            self.assertEqual((self.connections(), self.cache.resting(None)), (number, 0))
        self.deliver()
        self.wait(5.0)
        self.assertEqual((self.connections(), self.network.servers[-1].commands[-1]), (3, "QUIT"))
        self.all_sent()

    def test_stray_reply_while_it_rested(self) -> None:
        """A stray 250 is not taken for the reply to the next command."""
        self.rested("250 2.0.0 one too many")

    def test_garbage_while_it_rested(self) -> None:
        """What is no reply at all, or only the beginning of one."""
        self.rested("\0\1\2")
        self.rested("250-2.0.0 to be continued")

    def test_stray_reply_between_transactions(self) -> None:
        """The same where the lane keeps the session because more may come."""
        for said in ("250 2.0.0 one too many", "421 4.4.2 idle", "what?", CLOSE):
            self.build(destinations=frozenset())
            self.send()
            self.until(lambda: self.status("Q1") == ["sent"], 1.0)
            self.network.servers[0].says(said)
            self.deliver()
            self.all_sent()
            self.assertEqual((self.connections(), len(self.network.servers[0].contents)), (2, 1))


class ReusedSessionTests(ReuseCase):
    """A reused session that fails before a message was complete costs that message no attempt, and bounded time."""

    def fails_second(self, manners: dict[str, str], behind: dict[str, str] | None = None) -> None:
        """One message rides on the first session; the second message meets these manners there."""
        self.build()
        self.network.manners, self.network.behind = dict(manners), dict(behind or {})
        self.deliver()
        self.network.manners, self.network.behind = {}, {}
        self.send()

    def once_more_on_a_new_one(self, limit: float = 1.0) -> None:
        """The second message arrived over a second connection, within so many seconds."""
        self.until(lambda: bool(self.status("Q2")), limit)
        self.wait()
        self.all_sent()
        self.assertEqual((self.connections(), self.arrived()), (2, ["Q1", "Q2"]))

    def test_closes_after_each_message(self) -> None:
        """A server that closes behind each final reply: each message has a connection, none is deferred or doubled."""
        for close in (CLOSE, "421 4.3.2 that was all"):
            self.build()
            self.network.behind = {".": close}
            for _ in range(10):
                self.send()
            self.wait(5.0)
            self.all_sent()
            self.assertEqual(sorted(self.arrived()), sorted(f"Q{number}" for number in range(1, 11)))
            self.assertEqual(self.connections(), 10)

    def test_closes_in_place_of_second_mail(self) -> None:
        """It closes when it sees the second MAIL."""
        self.fails_second({"MAIL 2": CLOSE})
        self.once_more_on_a_new_one()

    def test_421_to_mail_is_retried_once_on_a_new_session(self) -> None:
        """At once, and no attempt is counted."""
        self.fails_second({"MAIL 2": "421 4.3.2 closing"}, {"MAIL 2": CLOSE})
        self.once_more_on_a_new_one()

    def test_421_to_mail_on_the_new_session_too(self) -> None:
        """It is not retried a second time: the reply on a fresh session is the outcome."""
        self.fails_second({"MAIL 2": "421 4.3.2 closing"})
        self.network.manners = {"MAIL": "421 4.3.2 closing"}
        self.wait()
        self.assertEqual((self.status("Q2"), self.connections()), (["deferred"], 2))

    def test_retry_never_rides_on_another_reused_session(self) -> None:
        """Others that rest may be as stale as the first."""
        self.network.manners = {"MAIL 2": "421 4.3.2 closing"}
        self.two_sessions()
        self.network.manners = {}
        self.deliver()
        self.all_sent()
        self.assertEqual([len(server.contents) for server in self.network.servers], [1, 1, 1])
        self.assertEqual(sorted(server.commands.count("MAIL") for server in self.network.servers), [1, 1, 2])

    def test_too_many_messages_in_session(self) -> None:
        """Codes and texts of various servers; it is no failure."""
        for said in (
            "452 4.3.1 Maximum message count per session reached", "421 4.7.0 session maximum lifetime reached",
            "451 4.7.1 Too many messages in this connection", "450 too many mails per connection",
        ):  # fmt: skip
            self.fails_second({"MAIL 2": said})
            self.once_more_on_a_new_one()

    def test_stalls_at_first_reply_after_rest(self) -> None:
        """Nothing comes: for as long as smtp_rset_timeout and not smtp_mail_timeout, and then it goes elsewhere."""
        self.fails_second({"MAIL 2": SILENCE, "RCPT 2": SILENCE, "DATA 2": SILENCE})
        self.once_more_on_a_new_one(RSET_TIMEOUT + 1)

    def unclean(self, said: str, limit: float = 1.0) -> None:
        """A recipient is refused, so that RSET goes before the next MAIL; this is what it is answered."""
        self.build(destinations=frozenset())
        self.network.manners = {"RCPT": "550 5.1.1 nobody", "DATA": "503 5.5.1 no recipients", "RSET": said}
        if said == SILENCE:
            self.network.manners |= dict.fromkeys(("MAIL 2", "RCPT 2", "RCPT 3", "DATA 2"), SILENCE)
        first = self.send(sender="")
        self.until(lambda: self.status(first) == ["bounced"], 1.0)
        self.network.manners = {}
        second = self.send("ann@example.com", "bob@example.com")
        self.until(lambda: bool(self.status(second)), limit)
        self.wait()
        self.assertEqual((self.status(second), self.connections()), (["sent", "sent"], 2))

    def test_rset_answered_503(self) -> None:
        """Never a bounce: the request goes to another session."""
        self.unclean("503 5.5.1 what is RSET?")

    def test_rset_answered_421(self) -> None:
        """Likewise."""
        self.unclean("421 4.3.2 no more")

    def test_rset_answered_by_close(self) -> None:
        """Likewise."""
        self.unclean(CLOSE)

    def test_stalls_at_rset(self) -> None:
        """Within smtp_rset_timeout."""
        self.unclean(SILENCE, RSET_TIMEOUT + 1)

    def test_5xx_to_mail_is_that_outcome(self) -> None:
        """And the session goes on."""
        self.fails_second({"MAIL 2": "550 5.7.1 not from you", "RCPT 2": "503 no", "DATA 2": "503 no"})
        self.wait()
        self.deliver()
        self.assertEqual([self.status(f"Q{number}") for number in (1, 2, 3)], [["sent"], ["bounced"], ["sent"]])
        self.assertEqual(self.arrived()[:2], ["Q1", "Q3"])
        self.assertEqual(self.network.servers[0].contents, [b"Q1\r\n", b"Q3\r\n"])


    def test_503_on_reused_session(self) -> None:
        """
        The order of our commands was right: a server that wants another EHLO first, or has lost its place, gets a new
        session; on that one 503 is an outcome.
        """
        for manners in (
            {"MAIL 2": "503 5.5.1 EHLO first", "RCPT 2": "503 no", "DATA 2": "503 no"},
            {"MAIL 2": "500 5.5.2 what?", "RCPT 2": "503 no", "DATA 2": "503 no"},
            {"RCPT 2": "503 5.5.1 MAIL first", "DATA 2": "503 no"},
        ):
            self.fails_second(manners)
            self.once_more_on_a_new_one()
        self.build()
        self.network.manners = {"MAIL": "503 5.5.1 never"}
        self.deliver()
        self.assertEqual(self.status("Q1"), ["bounced"])

    def test_one_mail_for_each_hello(self) -> None:
        """A server that takes one MAIL for each EHLO: nothing is returned, nothing deferred."""
        self.build()
        self.network.manners = {f"MAIL {number}": "503 5.5.1 EHLO first" for number in range(2, 30)}
        for _ in range(20):
            self.send()
        self.wait(5.0)
        self.all_sent()

    def test_half_a_reply_too_many(self) -> None:
        """The beginning of a reply that nobody asked for, behind the final one: as a whole one."""
        for destinations in (frozenset[str](), frozenset({"example.com"})):
            self.build(destinations=destinations)
            self.network.half = "250 2.0.0 taken\r\n2"
            self.send()
            self.send()
            self.wait(5.0)
            self.all_sent()
            self.assertEqual(self.connections(), 2)


class FinalReplyTests(ReuseCase):
    """The reply to the final dot decides, and only it."""

    def test_reply_and_close_in_one_record(self) -> None:
        """A reply that its server closes behind at once counts, however fast the close is."""
        self.network.behind = {".": CLOSE}
        self.deliver()
        self.all_sent()
        self.assertEqual(self.connections(), 1)

    def test_closed_without_reply(self) -> None:
        """It may have been delivered: deferred once with 4.4.2, and not tried elsewhere before its time."""
        self.network.manners = {".": CLOSE}
        self.deliver()
        self.wait(10.0)
        (line,) = self.log.having("status=")
        self.assertIn("dsn=4.4.2, status=deferred (lost connection with", line)
        self.assertIn("sending end of data -- message may be sent more than once", line)
        self.assertEqual((self.connections(), self.arrived()), (1, ["Q1"]))
        self.network.manners = {}
        self.wait(400.0)
        self.assertEqual((self.status("Q1"), self.connections()), (["deferred", "sent"], 2))

    def test_closed_without_reply_on_reused_session(self) -> None:
        """No different: it was complete, so there is no second try at once."""
        self.network.manners = {". 2": CLOSE}
        self.deliver()
        self.deliver()
        self.wait(10.0)
        self.assertEqual((self.status("Q2"), self.connections(), self.arrived()), (["deferred"], 1, ["Q1", "Q2"]))

    def test_reply_too_many(self) -> None:
        """What was decided stands; the session carries nothing more."""
        self.network.behind = {".": "250 2.0.0 taken again"}
        self.deliver()
        self.network.behind = {}
        self.deliver()
        self.all_sent()
        self.assertEqual((self.connections(), self.arrived()), (2, ["Q1", "Q2"]))
