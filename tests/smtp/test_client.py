"""
Tests of L{smtpreuse.smtp.client}.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import AddressError, ProtocolError
from smtpreuse.model.reply import Reply
from smtpreuse.smtp.client import Answer, Client, State, Verb

SEND: dict[Verb, Callable[[Client], object]] = {
    Verb.EHLO: lambda client: client.ehlo("host.example.com"),
    Verb.HELO: lambda client: client.helo("host.example.com"),
    Verb.STARTTLS: lambda client: client.starttls(),
    Verb.MAIL: lambda client: client.mail("a@example.com"),
    Verb.RCPT: lambda client: client.rcpt("b@example.com"),
    Verb.DATA: lambda client: client.data(),
    Verb.CONTENT: lambda client: client.content(),
    Verb.RSET: lambda client: client.rset(),
    Verb.QUIT: lambda client: client.quit(),
}
# How each state is reached: verbs are sent, numbers are codes received.
WAYS: dict[State, tuple[Verb | int, ...]] = {
    State.GREETING: (),
    State.GREETED: (220,),
    State.UNWELCOME: (554,),
    State.HELLO: (220, Verb.EHLO),
    State.READY: (220, Verb.EHLO, 250),
    State.STARTTLS: (220, Verb.EHLO, 250, Verb.STARTTLS),
    State.HANDSHAKE: (220, Verb.EHLO, 250, Verb.STARTTLS, 220),
    State.ENVELOPE: (220, Verb.EHLO, 250, Verb.MAIL),
    State.RECIPIENTS: (220, Verb.HELO, 250, Verb.MAIL, Verb.RCPT),
    State.DATA: (220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA),
    State.CONTENT: (220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA, 250, 250, 354),
    State.REFUSED: (220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA, 250, 250, 451),
    State.QUIT: (220, Verb.EHLO, 250, Verb.QUIT),
    State.CLOSED: (220, Verb.EHLO, 250, Verb.QUIT, 221),
    State.BROKEN: (220, 220),
}
MAY: dict[State, set[Verb]] = {
    State.GREETED: {Verb.EHLO, Verb.HELO, Verb.QUIT},
    State.UNWELCOME: {Verb.QUIT},
    State.READY: {Verb.EHLO, Verb.HELO, Verb.STARTTLS, Verb.MAIL, Verb.RSET, Verb.QUIT},
    State.ENVELOPE: {Verb.RCPT, Verb.RSET, Verb.QUIT},
    State.RECIPIENTS: {Verb.RCPT, Verb.DATA, Verb.RSET, Verb.QUIT},
    State.CONTENT: {Verb.CONTENT},
    State.REFUSED: {Verb.RSET, Verb.QUIT},
}
LEADS: dict[Verb, State] = {
    Verb.EHLO: State.HELLO, Verb.HELO: State.HELLO, Verb.STARTTLS: State.STARTTLS, Verb.MAIL: State.ENVELOPE,
    Verb.RCPT: State.RECIPIENTS, Verb.DATA: State.DATA, Verb.CONTENT: State.READY, Verb.RSET: State.READY,
    Verb.QUIT: State.QUIT,
}


def led(*steps: Verb | int, client: Client | None = None) -> Client:
    """A client that was led this way."""
    client = client if client is not None else Client()
    for step in steps:
        if isinstance(step, int):
            client.receive(b"%d text\r\n" % step)
        else:
            SEND[step](client)
    return client


def verbs(answers: list[Answer]) -> list[tuple[Verb | None, int]]:
    """What was answered with which code."""
    return [(answer.verb, answer.reply.code) for answer in answers]


class TableTests(SynchronousTestCase):
    """
    In each state only the commands of its row may be sent, and each leads where the row says.
    """

    def test_every_state(self) -> None:
        """There is a way to every state."""
        self.assertEqual(set(WAYS), set(State))
        for state, way in WAYS.items():
            self.assertIs(led(*way).state, state)

    def test_every_command(self) -> None:
        """Every command in every state: it leads on, or is refused and changes nothing."""
        for state, way in WAYS.items():
            for verb, send in SEND.items():
                client = led(*way)
                outstanding = client.outstanding
                if verb in MAY.get(state, ()):
                    send(client)
                    self.assertIs(client.state, LEADS[verb], (state, verb))
                    self.assertEqual(client.outstanding, outstanding + 1)
                else:
                    self.assertRaises(ProtocolError, send, client)
                    self.assertEqual((client.state, client.outstanding), (state, outstanding), (state, verb))

    def test_octets(self) -> None:
        """What is sent."""
        client = led(220)
        self.assertEqual(client.ehlo("host.example.com"), b"EHLO host.example.com\r\n")
        led(500, client=client)
        self.assertEqual(client.helo("host.example.com"), b"HELO host.example.com\r\n")
        led(250, client=client)
        self.assertEqual(client.starttls(), b"STARTTLS\r\n")
        led(454, client=client)
        self.assertEqual(client.mail("", "SIZE=4"), b"MAIL FROM:<> SIZE=4\r\n")
        self.assertEqual(Client.activated().mail("a@example.com"), b"MAIL FROM:<a@example.com>\r\n")
        self.assertEqual(client.rcpt("b@example.com"), b"RCPT TO:<b@example.com>\r\n")
        self.assertEqual(client.data(), b"DATA\r\n")
        led(250, 250, 550, client=client)
        self.assertEqual(client.rset(), b"RSET\r\n")
        self.assertEqual(client.quit(), b"QUIT\r\n")

    def test_bad_address(self) -> None:
        """A command that cannot be built changes nothing."""
        client = led(220)
        self.assertRaises(AddressError, client.ehlo, "a b")
        self.assertRaises(AddressError, client.helo, "a b")
        led(Verb.EHLO, 250, client=client)
        self.assertRaises(AddressError, client.mail, "a\r\nb")
        self.assertIs(client.state, State.READY)
        led(Verb.MAIL, client=client)
        self.assertRaises(AddressError, client.rcpt, "a\r\nb")
        self.assertEqual((client.state, client.outstanding), (State.ENVELOPE, 1))

    def test_refusal_names_command_and_state(self) -> None:
        """The error says what was tried and why not."""
        error = self.assertRaises(ProtocolError, led(220).mail, "a@example.com")
        self.assertEqual(str(error), "MAIL may not be sent: the session is greeted")


class AnswerTests(SynchronousTestCase):
    """
    Replies are paired with commands in the order of sending; what they say decides what may follow.
    """

    def test_transaction(self) -> None:
        """A whole pipelined transaction, the next one's envelope riding behind its final dot."""
        client = led(220, Verb.EHLO, 250)
        self.assertTrue(client.idle)
        led(Verb.MAIL, Verb.RCPT, Verb.RCPT, Verb.DATA, client=client)
        self.assertEqual((client.awaiting, client.outstanding, client.idle), (Verb.MAIL, 4, False))
        self.assertEqual(
            verbs(client.receive(b"250 a\r\n250 b\r\n550 c\r\n354 d\r\n")),
            [(Verb.MAIL, 250), (Verb.RCPT, 250), (Verb.RCPT, 550), (Verb.DATA, 354)],
        )
        self.assertFalse(client.idle)
        led(Verb.CONTENT, Verb.MAIL, Verb.RCPT, Verb.DATA, client=client)
        self.assertEqual(
            verbs(client.receive(b"250 a\r\n250 b\r\n250 c\r\n354 d\r\n")),
            [(Verb.CONTENT, 250), (Verb.MAIL, 250), (Verb.RCPT, 250), (Verb.DATA, 354)],
        )
        client.content()
        self.assertEqual(client.receive(b"451 x\r\n"), [Answer(Verb.CONTENT, Reply(451, ("x",)))])
        self.assertTrue(client.idle)
        self.assertIsNone(client.awaiting)

    def test_replies_of_last_while_next_is_sent(self) -> None:
        """The reply to the final dot does not end the transaction that rides behind it."""
        client = led(*WAYS[State.CONTENT], Verb.CONTENT, Verb.MAIL, 250)
        self.assertEqual((client.state, client.idle), (State.ENVELOPE, False))
        led(250, client=client)
        self.assertEqual(client.state, State.ENVELOPE)

    def test_every_cut(self) -> None:
        """Replies cut anywhere give the same answers."""
        stream = b"250 a\r\n250-b\r\n250 b\r\n550 c\r\n354 d\r\n"
        sent = (Verb.MAIL, Verb.RCPT, Verb.RCPT, Verb.DATA)
        whole = led(220, Verb.EHLO, 250, *sent).receive(stream)
        self.assertEqual(len(whole), 4)
        for place in range(len(stream) + 1):
            client = led(220, Verb.EHLO, 250, *sent)
            self.assertEqual(client.receive(stream[:place]) + client.receive(stream[place:]), whole)
            self.assertIs(client.state, State.CONTENT)

    def test_mail_refused(self) -> None:
        """A transaction that the server did not begin needs no RSET."""
        self.assertTrue(led(220, Verb.EHLO, 250, Verb.MAIL, 450).idle)
        self.assertTrue(led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, 550, 503).idle)
        self.assertTrue(led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA, 550, 503, 503).idle)
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, 550)
        self.assertEqual((client.state, client.idle), (State.RECIPIENTS, False))

    def test_recipients_refused(self) -> None:
        """A transaction that the server did begin needs RSET."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA, 250, 550, 554)
        self.assertEqual((client.state, client.idle), (State.REFUSED, False))
        self.assertRaises(ProtocolError, client.mail, "a@example.com")
        led(Verb.RSET, client=client)
        self.assertFalse(client.idle)
        led(250, client=client)
        self.assertTrue(client.idle)

    def test_recipient_without_sender(self) -> None:
        """A server that takes a recipient although it refused the sender may have a transaction open."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, 550, 250)
        self.assertFalse(client.idle)
        self.assertIs(client.state, State.RECIPIENTS)

    def test_lone_dot(self) -> None:
        """354 without a valid recipient: the dot may be sent (RFC 2920 section 3.1), and the session goes on."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA, 550, 503, 354)
        self.assertFalse(client.idle)
        led(Verb.CONTENT, 554, client=client)
        self.assertTrue(client.idle)

    def test_rset_refused(self) -> None:
        """A session whose RSET was refused cannot rest; a later one that is not lets it."""
        client = led(220, Verb.EHLO, 250, Verb.RSET, 503)
        self.assertFalse(client.idle)
        self.assertIsNone(client.broken)
        self.assertTrue(led(Verb.RSET, 250, client=client).idle)

    def test_rset_with_next_mail(self) -> None:
        """RSET pipelined before MAIL: its reply does not end the transaction that follows."""
        client = led(*WAYS[State.REFUSED], Verb.RSET, Verb.MAIL, 250, 250)
        self.assertEqual((client.state, client.idle), (State.ENVELOPE, False))

    def test_ehlo_ends_transaction(self) -> None:
        """EHLO clears what RSET did not."""
        self.assertTrue(led(220, Verb.EHLO, 250, Verb.RSET, 503, Verb.EHLO, 250).idle)
        self.assertTrue(led(220, Verb.EHLO, 250, Verb.RSET, 503, Verb.HELO, 250).idle)

    def test_hello_refused(self) -> None:
        """EHLO refused: HELO or another EHLO may follow."""
        for verb in (Verb.EHLO, Verb.HELO):
            self.assertIs(led(220, verb, 502).state, State.GREETED)

    def test_starttls_refused(self) -> None:
        """STARTTLS refused: the session goes on in plaintext."""
        self.assertTrue(led(220, Verb.EHLO, 250, Verb.STARTTLS, 454).idle)

    def test_quit_refused(self) -> None:
        """Whatever QUIT is answered, the session is over."""
        client = led(220, Verb.QUIT, 500)
        self.assertEqual((client.state, client.broken), (State.CLOSED, None))

    def test_quit_behind_content(self) -> None:
        """QUIT may ride behind the final dot; both are answered."""
        client = led(*WAYS[State.CONTENT], Verb.CONTENT, Verb.QUIT)
        self.assertEqual(verbs(client.receive(b"250 a\r\n221 b\r\n")), [(Verb.CONTENT, 250), (Verb.QUIT, 221)])
        self.assertIs(client.state, State.CLOSED)

    def test_farewell_as_answer(self) -> None:
        """421 is an answer like any other refusal where one is due."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL)
        self.assertEqual(verbs(client.receive(b"421 bye\r\n")), [(Verb.MAIL, 421)])
        self.assertIsNone(client.broken)

    def test_activated(self) -> None:
        """A session taken out of rest is idle and may begin a transaction, and has no use for STARTTLS."""
        client = Client.activated()
        self.assertTrue(client.idle)
        self.assertEqual((client.outstanding, client.awaiting), (0, None))
        self.assertRaises(ProtocolError, client.starttls)
        self.assertEqual(verbs(led(Verb.MAIL, client=client).receive(b"250 a\r\n")), [(Verb.MAIL, 250)])

    def test_secured(self) -> None:
        """After the handshake only EHLO, HELO or QUIT may follow, and STARTTLS never."""
        for verb, send in SEND.items():
            client = Client.secured()
            self.assertEqual((client.outstanding, client.idle), (0, False))
            if verb in (Verb.EHLO, Verb.HELO, Verb.QUIT):
                send(client)
            else:
                self.assertRaises(ProtocolError, send, client)
        self.assertRaises(ProtocolError, led(Verb.EHLO, 250, client=Client.secured()).starttls)


class BrokenTests(SynchronousTestCase):
    """
    A server that breaks the grammar is believed up to the offence and no further.
    """

    def assertBroken(self, client: Client, reason: str) -> None:
        """It is broken for this reason, and takes and sends nothing any more."""
        self.assertEqual(client.broken, reason)
        self.assertIs(client.state, State.BROKEN)
        self.assertEqual((client.outstanding, client.awaiting, client.idle), (0, None, False))
        self.assertEqual(client.receive(b"250 a\r\n"), [])
        for send in SEND.values():
            self.assertRaises(ProtocolError, send, client)

    def test_unsolicited(self) -> None:
        """A reply that nobody asked for is handed on without a verb, and ends all belief."""
        client = Client.activated()
        self.assertEqual(
            client.receive(b"421 4.4.2 bye\r\n250 more\r\n"), [Answer(None, Reply(421, ("4.4.2 bye",)))]
        )
        self.assertBroken(client, "a reply that nobody asked for: '421 4.4.2 bye'")

    def test_one_too_many(self) -> None:
        """Answers before the extra reply stand."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT)
        self.assertEqual(
            verbs(client.receive(b"250 a\r\n250 b\r\n250 c\r\n250 d\r\n")),
            [(Verb.MAIL, 250), (Verb.RCPT, 250), (None, 250)],
        )
        self.assertBroken(client, "a reply that nobody asked for: '250 c'")

    def test_one_too_many_before_data(self) -> None:
        """An extra reply in the envelope is taken for DATA's, which has no 2xx."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA)
        self.assertEqual(len(client.receive(b"250 a\r\n250 b\r\n250 extra\r\n354 go\r\n")), 2)
        self.assertBroken(client, "DATA answered out of order: '250 extra'")

    def test_one_too_few(self) -> None:
        """A missing reply shows when 354 comes for what is not DATA."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA)
        self.assertEqual(verbs(client.receive(b"250 a\r\n354 go\r\n")), [(Verb.MAIL, 250)])
        self.assertBroken(client, "RCPT answered out of order: '354 go'")

    def test_exchanged(self) -> None:
        """Two replies exchanged around DATA."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT, Verb.DATA)
        self.assertEqual(len(client.receive(b"250 a\r\n354 go\r\n250 b\r\n")), 1)
        self.assertIsNotNone(client.broken)

    def test_codes_that_cannot_be(self) -> None:
        """354 is for DATA, and DATA has it alone among the positive ones."""
        for state in (State.GREETING, State.HELLO, State.STARTTLS, State.ENVELOPE, State.QUIT):
            for code in (300, 354):
                client = led(*WAYS[state])
                self.assertEqual(client.receive(b"%d x\r\n" % code), [])
                self.assertIsNotNone(client.broken, (state, code))
        for code in (200, 250, 300, 353, 355, 399):
            client = led(*WAYS[State.DATA], 250, 250)
            self.assertEqual(client.receive(b"%d x\r\n" % code), [])
            self.assertIsNotNone(client.broken, code)
        for code in (400, 421, 500, 599):
            client = led(*WAYS[State.DATA], 250, 250, code)
            self.assertEqual((client.state, client.broken), (State.REFUSED, None), code)

    def test_final_dot_answered_354(self) -> None:
        """A 3xx to the final dot is no answer."""
        self.assertBroken(led(*WAYS[State.CONTENT], Verb.CONTENT, 354), "content answered out of order: '354 text'")

    def test_garbage(self) -> None:
        """Answers complete before the garbage stand."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, Verb.RCPT)
        self.assertEqual(verbs(client.receive(b"250 a\r\nwhat?\r\n250 b\r\n")), [(Verb.MAIL, 250)])
        self.assertBroken(client, "not a reply line: b'what?'")

    def test_injected_behind_starttls(self) -> None:
        """What comes in plaintext behind the reply to STARTTLS, whole or not, ends the session (CVE-2011-0411)."""
        for injected in (b"250 injected\r\n", b"250", b"x"):
            client = led(220, Verb.EHLO, 250, Verb.STARTTLS)
            self.assertEqual(client.receive(b"220 go\r\n" + injected)[0].verb, Verb.STARTTLS)
            self.assertIsNotNone(client.broken, injected)
            client = led(220, Verb.EHLO, 250, Verb.STARTTLS, 220)
            client.receive(injected)
            self.assertIsNotNone(client.broken, injected)
        self.assertIsNone(led(220, Verb.EHLO, 250, Verb.STARTTLS, 220).broken)

    def test_partial_reply_on_rest(self) -> None:
        """The beginning of a reply that nobody asked for ends the session as a whole one does."""
        client = Client.activated()
        self.assertEqual(client.receive(b"42"), [])
        self.assertEqual((client.broken, client.idle), ("octets that nobody asked for", False))
        self.assertRaises(ProtocolError, client.mail, "a@example.com")
        client = led(220, Verb.EHLO, 250)
        client.mail("a@example.com")
        self.assertEqual(verbs(client.receive(b"250 ok\r\n2")), [(Verb.MAIL, 250)])
        self.assertEqual(client.broken, "octets that nobody asked for")

    def test_partial_reply_in_content(self) -> None:
        """While we send content it may be the beginning of a refusal, which counts when it is whole."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL, 250, Verb.RCPT, 250, Verb.DATA, 354)
        self.assertEqual(client.receive(b"55"), [])
        self.assertIsNone(client.broken)
        self.assertEqual(verbs(client.receive(b"2 too big\r\n")), [(None, 552)])
        client = led(220, Verb.EHLO, 250, Verb.MAIL, 250, Verb.RCPT, 250, Verb.DATA, 354)
        client.receive(b"55")
        client.content()
        self.assertEqual(verbs(client.receive(b"2 too big\r\n")), [(Verb.CONTENT, 552)])

    def test_partial_reply_while_one_is_due(self) -> None:
        """While a reply is on its way, more commands may go out."""
        client = led(220, Verb.EHLO, 250, Verb.MAIL)
        client.receive(b"25")
        client.rcpt("b@example.com")
        self.assertEqual(verbs(client.receive(b"0 a\r\n250 b\r\n")), [(Verb.MAIL, 250), (Verb.RCPT, 250)])

    def test_after_the_end(self) -> None:
        """A reply after QUIT was answered is one too many."""
        client = led(220, Verb.QUIT, 221)
        self.assertEqual(verbs(client.receive(b"250 x\r\n")), [(None, 250)])


STEPS = st.lists(
    st.one_of(
        st.sampled_from(list(SEND)), st.sampled_from([220, 221, 250, 354, 421, 450, 500, 550]), st.just(b"junk\r\n")
    ),
    max_size=40,
)


class AnySequenceTests(SynchronousTestCase):
    """
    Any sequence of commands and replies follows the table, or ends broken and stays so.
    """

    @given(st.sampled_from([Client, Client.activated, Client.secured]), STEPS)
    def test_any_sequence(self, begin: Callable[[], Client], steps: list[Verb | int | bytes]) -> None:
        """A command leads where the table says or changes nothing; a reply answers the oldest command or breaks."""
        client = begin()
        expected = [Verb.GREETING] if begin is Client else []
        for step in steps:
            before = client.state
            if isinstance(step, Verb):
                try:
                    SEND[step](client)
                except ProtocolError:
                    self.assertIs(client.state, before)
                else:
                    self.assertIn(step, MAY[before])
                    self.assertIs(client.state, LEADS[step])
                    expected.append(step)
            else:
                answers = client.receive(b"%d x\r\n" % step if isinstance(step, int) else step)
                if before is State.BROKEN:
                    self.assertEqual(answers, [])
                elif answers and answers[0].verb is not None:
                    self.assertEqual(verbs(answers), [(expected.pop(0), step)])
                else:
                    self.assertIsNotNone(client.broken)
            if client.broken is not None:
                self.assertIs(client.state, State.BROKEN)
                expected = []
            self.assertEqual(client.outstanding, len(expected))
            self.assertEqual(client.awaiting, expected[0] if expected else None)

    @given(st.integers(0, 8), st.sampled_from(["more", "less", "exchanged"]), st.integers(0, 8))
    def test_wrong_number_of_replies(self, place: int, fault: str, other: int) -> None:
        """
        Two overlapped transactions; one reply too many, too few, or two exchanged: no answer is paired with a verb it
        cannot belong to, and a session that lost count is never idle.
        """
        codes = [250, 250, 354, 250, 250, 250, 354, 250]
        place, other = min(place, 7), min(other, 7)
        if fault == "more":
            codes.insert(place, 250)
        elif fault == "less":
            del codes[place]
        else:
            codes[place], codes[other] = codes[other], codes[place]
        client = Client.activated()
        for verb in (Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT, Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT):
            if client.state is State.DATA or (verb is Verb.CONTENT and client.state is not State.CONTENT):
                break
            SEND[verb](client)
            if verb is Verb.DATA:
                while codes and client.outstanding and client.broken is None:
                    for answer in client.receive(b"%d x\r\n" % codes.pop(0)):
                        self.assertEqual(answer.verb is Verb.DATA, answer.reply.code == 354)
        for code in codes:
            client.receive(b"%d x\r\n" % code)
        harmless = fault == "exchanged" and (place in (2, 6)) == (other in (2, 6))
        self.assertEqual(client.idle, harmless)
