"""
Tests of L{smtpreuse.control.objects}.
"""

from __future__ import annotations

from attrs import asdict, evolve
from hypothesis import given
from hypothesis.strategies import integers, text
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.control import objects
from smtpreuse.control.objects import Message, Recipient, written
from smtpreuse.model.queueview import QueueRecipient
from tests.control.wire import row


def recipient(next_attempt: float | None, *, hop: str = "smtp:example.com", attempts: int = 0) -> QueueRecipient:
    """A recipient with these facts."""
    return QueueRecipient(
        address="user@example.com", delay_reason="", hop=hop, attempts=attempts, next_attempt=next_attempt
    )


class MessageTests(SynchronousTestCase):
    """A message of several recipients is shown by the one whose turn is next."""

    def test_turn(self) -> None:
        """The site and time are those of the earliest recipient, the attempts the most of all."""
        recipients = (
            recipient(None, hop="smtp:held.example.com"),
            recipient(30.0, hop="smtp:late.example.com", attempts=4),
            recipient(20.0, hop="smtp:[relay.example.com]:587", attempts=1),
        )
        shown = objects.message(evolve(row("4Aa"), recipients=recipients), set())
        self.assertEqual((shown.site, shown.next_attempt, shown.attempts), ("[relay.example.com]:587", 20.0, 4))

    def test_no_turn(self) -> None:
        """A message that waits for nothing has no next attempt."""
        shown = objects.message(evolve(row("4Aa"), recipients=(recipient(None),)), set())
        self.assertEqual((shown.site, shown.next_attempt), ("example.com", None))

    def test_no_recipients(self) -> None:
        """A message without recipients, as a corrupt one may be, is shown all the same."""
        shown = objects.message(evolve(row("4Aa"), state="corrupt", recipients=()), set())
        self.assertEqual(
            (shown.queue_name, shown.recipients, shown.site, shown.next_attempt, shown.attempts),
            ("corrupt", [], None, None, 0),
        )

    def test_other_hops(self) -> None:
        """What does not go to a server has no site."""
        for hop in ("discard:", "error:5.1.1 gone", "hold:", "smtp:", ""):
            self.assertIsNone(objects.message(row("4Aa", hop=hop), set()).site, hop)

    def test_reason(self) -> None:
        """No reason is null, not an empty text."""
        self.assertEqual(objects.message(row("4Aa"), set()).recipients[0].delay_reason, None)
        self.assertEqual(objects.message(row("4Aa", reason="x"), set()).recipients[0].delay_reason, "x")

    def test_null_sender(self) -> None:
        """The null sender has Postfix's name."""
        self.assertEqual(objects.message(evolve(row("4Aa"), sender=""), set()).sender, "MAILER-DAEMON")

    def test_full(self) -> None:
        """What is shown of one message is what a list shows of it, and its header."""
        shown = asdict(objects.full_message(evolve(row("4Aa"), header="A: b\r\n"), {"4Aa"}))
        self.assertEqual(
            shown, {**asdict(objects.message(row("4Aa"), {"4Aa"})), "headers": "A: b\r\n", "history": None}
        )


class CountsTests(SynchronousTestCase):
    """Each message counts once."""

    @given(integers(0, 9), integers(0, 9), integers(0, 30))
    def test_sum(self, incoming: int, deferred: int, active: int) -> None:
        """Whatever is active, the sum is that of the spool and no count is negative."""
        stored = {"incoming": incoming, "deferred": deferred, "hold": 3, "corrupt": 4}
        counts = asdict(objects.queue_counts(stored, active))
        self.assertEqual(sum(counts.values()), incoming + deferred + 7)
        self.assertGreaterEqual(min(counts.values()), 0)
        self.assertEqual(counts["active"], min(active, incoming + deferred))
        self.assertEqual(counts["deferred"], deferred if active <= incoming else max(deferred - (active - incoming), 0))
        self.assertEqual((counts["hold"], counts["corrupt"]), (3, 4))

    def test_nothing_stored(self) -> None:
        """What the spool does not name is 0."""
        self.assertEqual(set(asdict(objects.queue_counts({}, 0)).values()), {0})


class SpanTests(SynchronousTestCase):
    """Ages are seconds to the millisecond."""

    def test_span(self) -> None:
        """From then to now; 0 where the clock was set back."""
        self.assertEqual(objects.span(1.0, 3.12345), 2.123)
        self.assertEqual(objects.span(3.0, 1.0), 0.0)


class LineTests(SynchronousTestCase):
    """An object is one line of ASCII, and comes back the same."""

    @given(text())
    def test_round_trip(self, anything: str) -> None:
        """Any text of a peer travels."""
        shown = Message(
            queue_name="deferred", queue_id="4Aa", arrival_time=1.5, message_size=1, forced_expire=False,
            sender=anything, recipients=[Recipient(address=anything, delay_reason=None)], site=None, next_attempt=None,
            attempts=0,
        )
        line = written(shown)
        self.assertTrue(line.isascii() and line.isprintable())
        self.assertEqual(objects.parsed(line, Message), shown)

    def test_added_keys(self) -> None:
        """A key that a later version adds does no harm; one that is missing is an error."""
        self.assertEqual(
            objects.parsed('{"changed":1,"in_flight":2,"later":3}', objects.Changed),
            objects.Changed(changed=1, in_flight=2),
        )
        self.assertRaises(ValueError, objects.parsed, '{"changed":1}', objects.Changed)
