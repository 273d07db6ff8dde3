"""
Two transactions in one flight: what a server may do meanwhile, and what follows. No message is lost, none is doubled
but where nobody can know, and none is returned for what was said about another.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpreuse.queue.schedule import LEARNED_FOR
from smtpreuse.queue.sitequeue import OVERLAP_AFTER
from tests.reuse.world import CLOSE, REPLIES, SILENCE, ReuseCase, Server

# The transaction that is the first to have another behind it, and that one.
FIRST = OVERLAP_AFTER + 1
SECOND = FIRST + 1


class FlightCase(ReuseCase):
    """One lane with a backlog."""

    def backlog(
        self, number: int = 20, manners: dict[str, str] | None = None, behind: dict[str, str] | None = None,
        **limits: int,
    ) -> Server:  # fmt: skip
        """
        So many messages wait for one session; the server it is opened to, which has these manners, others having none.
        """
        self.build(window=1, **limits)
        self.network.first = (manners or {}, behind or {})
        for _ in range(number):
            self.send()
        self.until(lambda: bool(self.network.servers), 1.0)
        return self.network.servers[0]

    def goes_on(self, seconds: float = 10.0) -> None:
        """What is untouched goes at once."""
        self.wait(seconds)

    def shared(self, server: Server) -> list[int]:
        """By number, the contents of this connection that an envelope followed in one write."""
        return [
            number
            for number, octets in enumerate((each for each in server.writes if b"\r\n.\r\n" in each), 1)
            if b"MAIL FROM" in octets.partition(b"\r\n.\r\n")[2]
        ]

    def ended(self, *numbers: int, status: str = "deferred") -> None:
        """These ended like this, all others were sent, each once."""
        for number in range(1, self.sent + 1):
            expected = [status] if number in numbers else ["sent"]
            self.assertEqual(self.status(f"Q{number}"), expected, (number, self.log.lines))
        self.assertEqual(sorted(self.arrived()), sorted(f"Q{number}" for number in range(1, self.sent + 1)))


class FlightTests(FlightCase):
    """Under backlog one round trip carries the content of one message and the envelope of the next."""

    def test_after_ten(self) -> None:
        """Not before the session has carried ten, and not behind the last."""
        server = self.backlog(20)
        self.goes_on()
        self.all_sent()
        self.assertEqual((self.connections(), self.shared(server)), (1, list(range(FIRST, 20))))
        self.assertEqual(len(self.log.having("TLS connection reused")), 19)

    def test_not_with_a_rate(self) -> None:
        """A rate is one of messages, not of round trips."""
        server = self.backlog(16, rate_delay=1)
        self.wait(30.0)
        self.all_sent()
        self.assertEqual(self.shared(server), [])

    def test_not_past_the_reuse_limit(self) -> None:
        """N reuses are N + 1 transactions, in flights or not."""
        self.backlog(20, most_reuses=14)
        self.goes_on()
        self.all_sent()
        self.assertEqual([len(each.contents) for each in self.network.servers], [15, 5])
        self.assertEqual([each.commands.count("MAIL") for each in self.network.servers], [15, 5])

    def test_known_limit(self) -> None:
        """Where the site's limit is known flights begin at once, and the last message under it goes alone."""
        self.build(window=1)
        self.network.behind = {". 5": CLOSE}
        for _ in range(30):
            self.send()
        self.goes_on()
        self.all_sent()
        self.assertEqual([len(each.contents) for each in self.network.servers], [5] * 6)
        self.assertEqual([each.commands.count("MAIL") for each in self.network.servers[2:]], [5] * 4)
        self.assertEqual([self.shared(each) for each in self.network.servers[2:]], [[1, 2, 3, 4]] * 4)

    def test_slow_server(self) -> None:
        """Where a final reply takes long another lane is of more use than a place behind it."""
        server = self.backlog(30, {".": SILENCE})
        for _ in range(14):
            self.until(lambda: server.commands[-1:] == ["."], 3.0)
            self.clock.advance(2.0)
            server.says(REPLIES["."])
            self.clock.advance(0.1)
        self.assertEqual(self.shared(server), [])


class DerailedTests(FlightCase):
    """A close within a flight, or replies that do not fit: the site has flights of one for a day."""

    def derails(self, manners: dict[str, str], behind: dict[str, str] | None = None) -> None:
        """The server of the first connection does this; others do nothing of the kind."""
        server = self.backlog(30, manners, behind)
        self.goes_on(60.0)
        self.assertEqual(self.shared(server), [FIRST])

    def one_by_one(self) -> None:
        """For a day, but not for longer."""
        self.assertEqual([self.shared(each) for each in self.network.servers[1:]], [[]] * (self.connections() - 1))
        self.clock.advance(LEARNED_FOR)
        self.network.servers.clear()
        for _ in range(15):
            self.send()
        self.goes_on()
        self.assertEqual(self.shared(self.network.servers[0]), list(range(FIRST, 15)))

    def test_closes_behind_the_reply(self) -> None:
        """Nothing is deferred."""
        self.derails({}, {f". {FIRST}": CLOSE})
        self.all_sent()
        self.assertEqual(self.connections(), 2)
        self.one_by_one()

    def test_destroys_its_last_reply(self) -> None:
        """
        The one is deferred; the other was not tried. It waits with all others while the site, which has no other
        session, is left alone.
        """
        self.derails({f". {FIRST}": CLOSE})
        self.wait(400.0)
        self.assertEqual(self.status(f"Q{FIRST}"), ["deferred", "sent"])
        self.assertIn("delivery temporarily suspended", self.log.having(f"Q{SECOND}: to=")[0])
        attempts = {each.queue_id: each.attempts for record in self.spool.records for each in record}
        self.assertEqual((attempts[f"Q{FIRST}"], attempts[f"Q{SECOND}"]), (0, 0))
        self.assertEqual(max(each.attempts for record in self.spool.records for each in record), 1)
        self.assertEqual(len(self.arrived()), 31)
        self.one_by_one()

    def test_421_in_place_of_the_next_mail(self) -> None:
        """With a close behind it."""
        self.derails({f"MAIL {SECOND}": "421 4.7.0 enough for one session"}, {f"MAIL {SECOND}": CLOSE})
        self.all_sent()
        self.assertEqual(self.connections(), 2)

    def test_throws_away_what_waits(self) -> None:
        """
        A server that forgets what it was sent before it answered: whatever it says of the rest of an envelope, that is
        no outcome.
        """
        for lost in (("MAIL",), ("MAIL", "RCPT"), ("RCPT",), ("MAIL", "RCPT", "DATA")):
            said = {verb: "503 5.5.1 bad sequence" for verb in ("MAIL", "RCPT", "DATA")}
            said["DATA"] = "554 5.5.1 no valid recipients"
            said |= {verb: SILENCE for verb in lost}
            if "MAIL" not in lost:
                said["MAIL"] = REPLIES["MAIL"]
            self.derails({f"{verb} {SECOND}": text for verb, text in said.items()})
            self.wait(60.0)
            self.all_sent()
            self.assertEqual(self.connections(), 2)

    def test_bad_sequence(self) -> None:
        """Nor is a 503 to MAIL or to DATA, however many replies there are."""
        for verbs in (("MAIL", "RCPT", "DATA"), ("DATA",)):
            self.derails({f"{verb} {SECOND}": "503 5.5.1 bad sequence" for verb in verbs})
            self.all_sent()
            self.assertEqual(self.connections(), 2)

    def test_loses_a_reply(self) -> None:
        """The next one that comes does not fit its command."""
        for verb in ("MAIL", "RCPT"):
            self.derails({f"{verb} {SECOND}": SILENCE})
            self.all_sent()
            self.assertEqual(self.connections(), 2)

    def test_loses_the_final_reply(self) -> None:
        """What is answered to the next envelope is taken for it: then nothing fits any more."""
        self.derails({f". {FIRST}": SILENCE})
        self.assertEqual(self.status(f"Q{FIRST}"), ["sent"])
        self.assertEqual(sorted(self.arrived()), sorted(f"Q{number}" for number in range(1, 31)))
        self.one_by_one()

    def test_reply_too_many(self) -> None:
        """What was decided stands, and what is decided of the next is decided elsewhere."""
        for said in ("250 2.0.0 taken again", "550 5.7.1 on second thoughts", "421 4.3.2 bye"):
            self.derails({}, {f". {FIRST}": said})
            self.assertEqual(sorted(self.arrived()), sorted(f"Q{number}" for number in range(1, 31)))
            self.assertEqual(self.status(f"Q{FIRST}"), ["sent"])

    def test_exchanged(self) -> None:
        """354 and 250 change places."""
        self.derails({f"RCPT {SECOND}": "354 go on", f"DATA {SECOND}": "250 ok"})
        self.all_sent()
        self.assertEqual(self.connections(), 2)

    def test_stalls(self) -> None:
        """The final reply does not come: its message is deferred when its time is over, the next one goes then."""
        stalls = ((".", FIRST), ("MAIL", SECOND), ("RCPT", SECOND), ("DATA", SECOND))
        self.backlog(20, {f"{verb} {number}": SILENCE for verb, number in stalls})
        self.wait(60.0)
        (line,) = self.log.having(f"Q{FIRST}: to=")
        self.assertIn("timed out while sending end of data -- message may be sent more than once", line)
        self.wait(400.0)
        self.assertEqual(self.status(f"Q{FIRST}"), ["deferred", "sent"])
        self.assertEqual(sorted(set(self.arrived())), sorted(f"Q{number}" for number in range(1, 21)))
        self.assertEqual(len(self.arrived()), 21)


class RefusedTests(FlightCase):
    """A refusal is for the message that it was given to."""

    def test_content_refused(self) -> None:
        """The next one is not judged by a session that has left its place, and goes at once to another."""
        for after in (REPLIES["MAIL"], "503 5.5.1 out of order", "500 5.5.2 what?"):
            self.backlog(30, {
                f". {FIRST}": "554 5.7.1 spam", f"MAIL {SECOND}": after, f"RCPT {SECOND}": after,
                f"DATA {SECOND}": REPLIES["DATA"] if after == REPLIES["MAIL"] else after,
            })  # fmt: skip
            self.goes_on()
            # The last connection takes the notification.
            self.assertEqual(self.connections(), 3)
            self.network.servers[-1].contents.clear()
            self.ended(FIRST, status="bounced")
            # It is no reason to go one by one.
            self.assertEqual(self.shared(self.network.servers[1])[:1], [FIRST])

    def test_recipient_refused(self) -> None:
        """The second's recipient: returned with that, and the session goes on."""
        refused = {f"RCPT {SECOND}": "550 5.1.1 nobody of this name", f"DATA {SECOND}": "503 5.5.1 no"}
        server = self.backlog(20, refused)
        self.goes_on()
        self.assertEqual(self.status(f"Q{SECOND}"), ["bounced"])
        self.assertEqual(self.log.having(f"Q{SECOND}: to=")[0].count("nobody of this name"), 1)
        self.assertEqual(len(server.contents), 19)


_VERBS = ("MAIL", "RCPT", "DATA", ".")
_SAID = st.sampled_from([
    CLOSE, SILENCE, "250 2.0.0 ok", "354 go on", "421 4.3.2 bye", "450 4.2.0 later", "503 5.5.1 order", "554 5.7.1 no",
    "what?",
])  # fmt: skip


class AnyServerTests(FlightCase):
    """Whatever a server says, and wherever."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.dictionaries(st.tuples(st.sampled_from(_VERBS), st.integers(FIRST - 1, FIRST + 3)), _SAID, max_size=3),
        st.dictionaries(st.tuples(st.sampled_from(_VERBS), st.integers(FIRST - 1, FIRST + 3)), _SAID, max_size=2),
    )
    def test_nothing_lost_nothing_doubled(
        self, manners: dict[tuple[str, int], str], behind: dict[tuple[str, int], str]
    ) -> None:
        """
        Every message has an end. What arrived twice was told to be unknown in between; what nobody refused was not
        returned.
        """
        self.backlog(
            20, {f"{verb} {number}": said for (verb, number), said in manners.items()},
            {f"{verb} {number}": said for (verb, number), said in behind.items()},
        )  # fmt: skip
        self.clock.pump([0.5] * 1000)
        refused = [said for said in (*manners.values(), *behind.values()) if said.startswith("5")]
        bounced = [number for number in range(1, 21) if "bounced" in self.status(f"Q{number}")]
        self.assertLessEqual(len(bounced), len(refused))
        for number in range(1, 21):
            queue_id = f"Q{number}"
            status = self.status(queue_id)
            self.assertTrue(status, (queue_id, self.log.lines))
            if status == ["sent"]:
                self.assertEqual(self.arrived().count(queue_id), 1, self.log.lines)
            self.assertLessEqual(self.arrived().count(queue_id), 1 + status.count("deferred"), self.log.lines)
        self.assertEqual(self.dispatcher.in_flight(), set())
