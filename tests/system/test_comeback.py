"""
Destinations that fail and come back, or want less than they are offered; and mail that outlives a restart.
"""

from __future__ import annotations

import itertools

from tests.service import Service, until
from tests.system.injection import inject, letter, letters
from tests.system.world import SystemTestCase


class ComebackTests(SystemTestCase):
    """Mail waits for its destination as long as it must and no longer, whatever happens to the service."""

    def deferred(self, running: Service, count: int) -> None:
        """Wait until so many recipients were deferred."""
        until(lambda: running.log().count("status=deferred") >= count, running.log)

    def attempt_times(self, running: Service) -> dict[str, object]:
        """When each message is tried next."""
        return {str(row["queue_id"]): row["next_attempt"] for row in running.ask("queue", "list")}

    def test_down_then_up(self) -> None:
        """What could not be delivered goes when minimal_backoff_time is over, without anybody's help."""
        sink = self.destination()
        sink.stop()
        running = self.service(sink)
        sent = inject(running.start(), [letter(f"C{number}") for number in range(20)]).accepted
        self.deferred(running, 20)
        sink.start()
        self.arrived(sink, sent)
        self.empty(running)
        self.check_single(sink)

    def test_restart_keeps_next_attempt(self) -> None:
        """A restart neither forgets deferred mail nor tries it sooner; a flush does."""
        sink = self.destination()
        sink.stop()
        running = self.service(sink, minimal_backoff_time="1h", maximal_backoff_time="2h")
        sent = inject(running.start(), [letter("N1")]).accepted
        self.deferred(running, 1)
        until(lambda: self.queue(running)["deferred"] == 1, lambda: str(self.queue(running)))
        before = self.attempt_times(running)
        for restart in (running.stop, running.kill):
            restart()
            running.start()
            self.assertEqual(self.attempt_times(running), before)
        sink.start()
        self.assertEqual(running.log().count("status=deferred"), 1)
        self.assertEqual(running.ask("queue", "flush"), [{"changed": 1, "in_flight": 0}])
        self.arrived(sink, sent)

    def test_route_change(self) -> None:
        """Mail queued for one relay goes to the other after a start with another relayhost."""
        old, new = self.destination(), self.destination()
        old.stop()
        running = self.service(old)
        sent = inject(running.start(), [letter(f"X{number}") for number in range(5)]).accepted
        self.deferred(running, 5)
        running.stop()
        running.configure(smtp_dns_support_level="disabled", relayhost=new.relayhost, minimal_backoff_time="1s")
        running.start()
        self.arrived(new, sent)
        self.empty(running)
        self.assertEqual(old.taken, [])

    def test_connection_limit(self) -> None:
        """A destination that turns away all but two connections gets all mail over those, and nothing is deferred."""
        sink = self.destination(most_connections=2)
        running = self.service(sink)
        sent = inject(running.start(), list(itertools.islice(letters("L"), 400)), connections=20).accepted
        self.assertEqual(len(sent), 400)
        self.arrived(sink, sent)
        self.empty(running)
        self.assertEqual(sink.most_open, 2)
        self.assertEqual(running.maillog("status=deferred"), [])
        self.check_single(sink)

    def test_message_limit(self) -> None:
        """A destination that closes after five messages teaches that; nothing is deferred, and nothing is doubled."""
        sink = self.destination(tls=True, most_messages=5)
        running = self.service(
            sink, smtp_connection_cache_destinations="127.0.0.1", smtp_connection_cache_time_limit="1h"
        )
        sent = inject(running.start(), list(itertools.islice(letters("M"), 300))).accepted
        self.arrived(sink, sent)
        self.empty(running)
        self.assertEqual(running.maillog("status=deferred"), [])
        self.check_single(sink)
        # Two recipients of one message may share a transaction, so there were 300 to 330. Sessions with nothing to do
        # rest, however slowly mail comes in: none ends before its fifth message.
        self.assertGreaterEqual(sink.connections, 300 // 5)
        self.assertLessEqual(sink.connections - len(sink.open), 330 // 5)

    def test_lost_connections(self) -> None:
        """A destination that drops all of its connections and comes back gets what is left."""
        sink = self.destination(tls=True)
        running = self.service(sink)
        sent = list(itertools.islice(letters("B"), 600))
        running.start()
        accepted = inject(running.port, sent[:300]).accepted
        sink.stop()
        accepted |= inject(running.port, sent[300:]).accepted
        sink.start()
        self.arrived(sink, accepted)
        self.empty(running)
        self.check_whole(sink, sent)

    def test_tls_demanded(self) -> None:
        """At the level encrypt a server without STARTTLS gets nothing; when it offers it, all comes encrypted."""
        sink = self.destination()
        running = self.service(sink, smtp_tls_security_level="encrypt")
        sent = inject(running.start(), [letter("T1")]).accepted
        self.deferred(running, 1)
        (line, *_) = running.maillog("status=deferred")
        self.assertIn("dsn=4.7.4", line)
        self.assertEqual(sink.taken, [])
        sink.manners.tls = True
        sink.stop()
        sink.start()
        self.arrived(sink, sent)
        self.assertEqual([taken.encrypted for taken in sink.taken], [True])
