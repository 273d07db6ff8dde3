"""
Tests of L{smtpreuse.cli.queue}.
"""

from __future__ import annotations

import json

from attrs import evolve

from smtpreuse.cli import queue
from smtpreuse.cli.control import ServiceRefused
from smtpreuse.model.queueview import QueueRecipient
from tests.cli.asking import AskingTestCase, Ended
from tests.control.wire import row

REASON = "connect to mx.example.com[192.0.2.1]:25: Connection refused"


def recipient(address: str, reason: str = "") -> QueueRecipient:
    """A recipient with these facts."""
    return QueueRecipient(
        address=address, delay_reason=reason, hop="smtp:example.com", attempts=2, next_attempt=1795299918.0
    )


class QueueTestCase(AskingTestCase):
    """Runs C{smtpreuse queue}."""

    def ask(self, *words: str) -> Ended:
        """Run C{smtpreuse queue WORD...}."""
        return self.run_words(queue, "queue", *words)


class ListTests(QueueTestCase):
    """C{queue list} shows the queue as C{postqueue -p} does."""

    def test_empty(self) -> None:
        """An empty queue is said to be empty; in JSON it is nothing."""
        self.assertEqual(self.ask("list"), Ended(0, "Mail queue is empty\n", ""))
        self.assertEqual(self.ask("list", "--json"), Ended(0, "", ""))

    def test_list(self) -> None:
        """Messages with their state, and recipients behind the reason that they share."""
        long = evolve(
            row("4ZabcdQ12z"), arrived=1795299618.0, state="deferred",
            recipients=(
                recipient("a@example.com", REASON), recipient("b@example.com"), recipient("c@example.com", REASON),
            ),
        )  # fmt: skip
        self.desk.rows = [long, evolve(row("4ZabcdQ12zz"), sender="", arrived=1795299618.0, size=2048)]
        self.view.taken_up = {"4ZabcdQ12zz"}
        self.assertEqual(
            self.ask("list").out,
            "----Queue ID-----  --Size-- ----Arrival Time---- -Sender/Recipient-------\n"
            "4ZabcdQ12z            4096 Sat Nov 21 22:20:18  sender@example.com\n"
            "                 (connect to mx.example.com[192.0.2.1]:25: Connection refused)\n"
            "                                                a@example.com\n"
            "                                                c@example.com\n"
            "                                                b@example.com\n"
            "\n"
            "4ZabcdQ12zz*          2048 Sat Nov 21 22:20:18  MAILER-DAEMON\n"
            "                                                user@example.com\n"
            "\n"
            "-- 6 Kbytes in 2 Requests.\n",
        )

    def test_marks(self) -> None:
        """A mark behind the queue id says where the message is."""
        self.desk.rows = [
            evolve(row(f"4A{number}"), state=state)
            for number, state in enumerate(("hold", "corrupt", "deferred", "incoming"))
        ]
        lines = [line.split()[0] for line in self.ask("list").out.splitlines() if line.startswith("4A")]
        self.assertEqual(lines, ["4A0!", "4A1?", "4A2", "4A3"])

    def test_one(self) -> None:
        """One message is one request."""
        self.desk.rows = [row("4Aa")]
        self.assertTrue(self.ask("list").out.endswith("\n-- 4 Kbytes in 1 Request.\n"))

    def test_json(self) -> None:
        """With C{--json} there is one object per line, as the service shows it, and nothing else."""
        self.desk.rows = [row("4Aa"), row("4Ab")]
        ended = self.ask("list", "--json")
        self.assertEqual([json.loads(line)["queue_id"] for line in ended.out.splitlines()], ["4Aa", "4Ab"])
        self.assertEqual(list(json.loads(ended.out.splitlines()[0]))[:2], ["queue_name", "queue_id"])

    def test_pages(self) -> None:
        """A queue of several pages is shown whole, in its order, and asked for page by page."""
        self.desk.rows = [row(f"4A{number:04d}") for number in range(2001)]
        ended = self.ask("list", "--json")
        self.assertEqual(
            [json.loads(line)["queue_id"] for line in ended.out.splitlines()],
            [each.queue_id for each in self.desk.rows],
        )
        self.assertEqual(
            self.desk.calls, [("page", "", 1000), ("page", "4A0999", 1000), ("page", "4A1999", 1000)]
        )
        self.assertTrue(self.ask("list").out.endswith(" in 2001 Requests.\n"))

    def test_streams(self) -> None:
        """The second page is asked for only when the first has been taken."""
        self.desk.rows = [row(f"4A{number:04d}") for number in range(1500)]
        lines = self.service.lines("/queue")
        for _ in range(1000):
            next(lines)
        self.assertEqual(len(self.desk.calls), 1)
        next(lines)
        self.assertEqual(len(self.desk.calls), 2)

    def test_hostile(self) -> None:
        """What peers wrote cannot address the terminal."""
        self.desk.rows = [
            evolve(row("4Aa"), sender="\x1b[2J@example.com", recipients=(recipient("\x9b@example.com", "\x07\n"),))
        ]
        out = self.ask("list").out
        self.assertTrue(all(line.isprintable() for line in out.split("\n")), out)
        self.assertIn("?[2J@example.com", out)


class ShowTests(QueueTestCase):
    """C{queue show} shows one message."""

    def test_show(self) -> None:
        """All that is known of it, and its header."""
        self.desk.rows = [
            evolve(
                row("4Aa"), arrived=1795299618.0, state="deferred", header="Subject: a\tb\r\n\tc\x1b\r\n",
                recipients=(recipient("a@example.com", REASON), recipient("b@example.com")),
            )
        ]  # fmt: skip
        self.assertEqual(
            self.ask("show", "4Aa"),
            Ended(
                0,
                "queue id:      4Aa (deferred)\n"
                "arrived:       Sat Nov 21 22:20:18\n"
                "size:          4096\n"
                "sender:        sender@example.com\n"
                "recipient:     a@example.com\n"
                "  deferred:    connect to mx.example.com[192.0.2.1]:25: Connection refused\n"
                "recipient:     b@example.com\n"
                "attempts:      2\n"
                "next attempt:  Sat Nov 21 22:25:18 at example.com\n"
                "\n"
                "Subject: a b\n"
                " c?\n",
                "",
            ),
        )

    def test_little(self) -> None:
        """What is not known is left out."""
        self.desk.rows = [evolve(row("4Aa"), arrived=1795299618.0, state="corrupt", recipients=())]
        self.assertEqual(
            self.ask("show", "4Aa").out,
            "queue id:      4Aa (corrupt)\n"
            "arrived:       Sat Nov 21 22:20:18\n"
            "size:          4096\n"
            "sender:        sender@example.com\n"
            "attempts:      0\n",
        )

    def test_no_site(self) -> None:
        """An attempt that goes to no server has a time only."""
        self.desk.rows = [evolve(row("4Aa", hop="discard:"), arrived=1795299618.0)]
        self.assertTrue(self.ask("show", "4Aa").out.endswith("\nnext attempt:  Thu Jan 01 00:21:40\n"))

    def test_json(self) -> None:
        """One object."""
        self.desk.rows = [evolve(row("4Aa"), header="A: b\r\n")]
        ended = self.ask("show", "4Aa", "--json")
        shown = json.loads(ended.out)
        self.assertEqual((shown["queue_id"], shown["headers"], shown["history"]), ("4Aa", "A: b\r\n", None))
        self.assertEqual(ended.out.count("\n"), 1)

    def test_missing(self) -> None:
        """What is not there is refused, whatever it looks like."""
        for text in ("4Aa", "a/b", "../status", "", "flush"):
            self.assertRaises(ServiceRefused, self.ask, "show", text)


class FlushTests(QueueTestCase):
    """C{queue flush} makes deferred mail due."""

    def test_all(self) -> None:
        """All of it."""
        self.desk.rows = [row("4Aa"), row("4Ab")]
        self.assertEqual(self.ask("flush"), Ended(0, "2 messages due now\n", ""))
        self.assertEqual(self.desk.calls, [("flush", None)])

    def test_site(self) -> None:
        """Or that of one site, in any of its forms."""
        self.desk.rows = [row("4Aa")]
        self.assertEqual(self.ask("flush", "[relay.example.com]:587"), Ended(0, "1 message due now\n", ""))
        self.assertEqual(self.desk.calls, [("flush", "[relay.example.com]:587")])

    def test_json(self) -> None:
        """The service's answer."""
        self.assertEqual(self.ask("flush", "--json").out, '{"changed":0,"in_flight":0}\n')


class DeleteTests(QueueTestCase):
    """C{queue delete} deletes messages."""

    def setUp(self) -> None:
        super().setUp()
        self.desk.rows = [row("4Aa"), row("4Ab"), row("4Ac")]

    def test_delete(self) -> None:
        """Those that are named, each once."""
        self.assertEqual(self.ask("delete", "4Aa", "4Ac", "4Aa"), Ended(0, "2 messages deleted\n", ""))
        self.assertEqual([each.queue_id for each in self.desk.rows], ["4Ab"])

    def test_all(self) -> None:
        """All of them."""
        self.assertEqual(self.ask("delete", "ALL"), Ended(0, "3 messages deleted\n", ""))
        self.assertEqual(self.desk.rows, [])

    def test_all_among_others(self) -> None:
        """ALL beside a queue id is a wrong usage: nothing is deleted by accident."""
        ended = self.ask("delete", "ALL", "4Zz")
        self.assertEqual((ended.status, ended.out), (2, ""))
        self.assertIn("ALL stands for every message", ended.err)
        self.assertEqual(len(self.desk.rows), 3)

    def test_missing(self) -> None:
        """What is not there makes it a failure; the rest is deleted."""
        self.assertEqual(
            self.ask("delete", "4Aa", "4Zz"),
            Ended(1, "1 message deleted\n", "1 message not there: no such queue id\n"),
        )

    def test_in_flight(self) -> None:
        """What is in flight makes it a failure."""
        self.view.carried = {"4Aa", "4Ab"}
        self.assertEqual(
            self.ask("delete", "ALL", "--json"),
            Ended(
                1, '{"changed":1,"in_flight":2}\n', "2 messages left alone: a delivery is under way\n"
            ),
        )

    def test_many(self) -> None:
        """Many go in several requests, and are counted together."""
        self.desk.rows = [row(f"4A{number:04d}") for number in range(2500)]
        self.view.carried = {"4A0000", "4A2400"}
        queue_ids = [each.queue_id for each in self.desk.rows]
        self.assertEqual(self.ask("delete", "--json", *queue_ids).out, '{"changed":2498,"in_flight":2}\n')
        self.assertEqual([len(call[1]) for call in self.desk.calls], [1000, 1000, 500])
