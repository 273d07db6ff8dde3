"""
The service in its operator's hands: the commands as users run them.
"""

from __future__ import annotations

import json

from tests.service import Service, until
from tests.system.destination import Destination
from tests.system.injection import inject, letter
from tests.system.world import SystemTestCase, objects


class OperatorTests(SystemTestCase):
    """What C{smtpreuse} says of the running service is so, and what it asks of it is done."""

    def stuck(self, count: int = 3) -> tuple[Service, Destination]:
        """A service with mail that waits for a destination which is down."""
        sink = self.destination()
        sink.stop()
        running = self.service(sink, minimal_backoff_time="1h", maximal_backoff_time="1h")
        inject(running.start(), [letter(f"O{number}") for number in range(count)])
        until(lambda: self.queue(running)["deferred"] == count, lambda: str(self.queue(running)))
        return running, sink

    def test_list_and_show(self) -> None:
        """The queue as it is, each message with its envelope, its reason and its header."""
        running, _ = self.stuck()
        ended = self.run_command(running, "queue", "list", "--json")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        rows = objects(ended)
        self.assertEqual(len(rows), 3)
        for row in rows:
            self.assertEqual((row["queue_name"], row["sender"]), ("deferred", "from@example.org"))
            (recipient,) = row["recipients"]
            self.assertEqual(recipient["address"], "to@example.test")
            self.assertIn("refused", recipient["delay_reason"])
        queue_id = str(rows[0]["queue_id"])
        ended = self.run_command(running, "queue", "show", queue_id, "--json")
        (shown,) = objects(ended)
        self.assertEqual({key: shown[key] for key in rows[0]}, rows[0])
        self.assertIn("X-Id: O", str(shown["headers"]))
        text = self.run_command(running, "queue", "list").stdout
        self.assertIn(queue_id, text)
        self.assertTrue(text.endswith("in 3 Requests.\n"), text)

    def test_flush(self) -> None:
        """A flush tries deferred mail at once."""
        running, sink = self.stuck()
        sink.start()
        ended = self.run_command(running, "queue", "flush")
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "3 messages due now\n", ""))
        until(lambda: len(sink.taken) == 3, lambda: f"{len(sink.taken)} arrived")
        self.empty(running)
        self.assertEqual(self.run_command(running, "queue", "list").stdout, "Mail queue is empty\n")

    def test_delete(self) -> None:
        """One message by its id, one that is not there, all others; none is delivered afterwards."""
        running, sink = self.stuck()
        first = str(running.ask("queue", "list")[0]["queue_id"])
        ended = self.run_command(running, "queue", "delete", first)
        self.assertEqual((ended.returncode, ended.stdout), (0, "1 message deleted\n"))
        self.assertEqual(self.run_command(running, "queue", "delete", first).returncode, 1)
        self.assertEqual(self.run_command(running, "queue", "show", first).returncode, 1)
        ended = self.run_command(running, "queue", "delete", "ALL", "--json")
        self.assertEqual((ended.returncode, json.loads(ended.stdout)), (0, {"changed": 2, "in_flight": 0}))
        sink.start()
        running.ask("queue", "flush")
        sent = inject(running.port, [letter("O9")]).accepted
        running.ask("queue", "flush")
        self.arrived(sink, sent)
        self.assertEqual([taken.identity for taken in sink.taken], ["O9"])

    def test_sessions(self) -> None:
        """A session is shown with what it proved, busy while it works and resting behind it."""
        sink = self.destination(tls=True, stalls=True)
        running = self.service(
            sink, smtp_connection_cache_destinations="127.0.0.1", smtp_connection_cache_time_limit="1h"
        )
        running.start()
        self.assertEqual(running.ask("sessions"), [])
        sent = inject(running.port, [letter("V1")]).accepted
        until(lambda: sink.stalled == 1, lambda: "the message did not come")
        (busy,) = running.ask("sessions")
        self.assertEqual((busy["state"], busy["endpoint"]), ("busy", f"[127.0.0.1]:{sink.port}"))
        tls = busy["tls"]
        assert isinstance(tls, dict)
        self.assertEqual(tls["protocol"], "TLSv1.3")
        sink.manners.stalls = False
        sink.stop()
        sink.start()
        running.ask("queue", "flush")
        self.arrived(sink, sent)
        until(
            lambda: [row["state"] for row in running.ask("sessions")] == ["resting"],
            lambda: f"no session rests: {running.ask('sessions')}",
        )
        (resting,) = running.ask("sessions")
        self.assertEqual(resting["uses"], 1)
        self.assertEqual(self.run_command(running, "sessions").returncode, 0)

    def test_status(self) -> None:
        """The figures are those of what happened."""
        sink = self.destination()
        running = self.service(sink)
        running.start()
        self.arrived(sink, inject(running.port, [letter(f"W{number}") for number in range(10)], 1).accepted)
        self.empty(running)
        (status,) = objects(self.run_command(running, "status", "--json"))
        self.assertEqual((status["state"], status["pid"], status["delivered"]), ("running", running.pid, 10))
        self.assertEqual(status["reused"], 10 - sink.connections)
        self.assertIn("10 delivered", self.run_command(running, "status").stdout)

    def test_ready(self) -> None:
        """C{status --ready} is 0 while mail is taken and 1 when not; all others say 69 then."""
        running = self.service(self.destination())
        running.start()
        for words in ("status --ready", "status", "sessions", "queue list", "queue flush"):
            self.assertEqual(self.run_command(running, *words.split()).returncode, 0, words)
        running.stop()
        for words, down in (("status --ready", 1), ("status", 69), ("sessions", 69), ("queue list", 69)):
            ended = self.run_command(running, *words.split())
            self.assertEqual((ended.returncode, ended.stdout), (down, ""), words)
            self.assertEqual(ended.stderr.count("\n"), 0 if down == 1 else 1, ended.stderr)
