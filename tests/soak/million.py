"""
A million messages in the queue.
"""

from __future__ import annotations

import time

from tests.service import until
from tests.system.test_memory import MIB, filled, most_resident
from tests.system.world import SystemTestCase

# Seconds.
START_LIMIT = 10.0


class MillionTests(SystemTestCase):
    """A long queue delays neither the start nor the first delivery, and does not fill the memory."""

    messages = 1_000_000
    limit = 120 * MIB

    def start(self, *domains: str) -> None:
        """Fill the queue for these domains, start, and look at the first deliveries; the figures are printed."""
        sink = self.destination()
        running = self.service(sink)
        filled(running, self.messages, 400, *domains, limit=1200)
        began = time.monotonic()
        running.start()
        ready = time.monotonic() - began
        until(lambda: bool(sink.taken), lambda: "nothing arrived")
        first = time.monotonic() - began
        # What is no longer in the queue has arrived.
        self.assertGreaterEqual(sum(self.queue(running).values()) + len(sink.taken), self.messages)
        until(lambda: len(sink.taken) >= 5000, lambda: f"{len(sink.taken)} arrived")
        used = most_resident(running)
        print(f"\n{self.id()}: ready {ready:.1f} s, first delivery {first:.1f} s, {used / MIB:.0f} MiB")
        self.assertLess(ready, START_LIMIT)
        self.assertLess(used, self.limit)
        self.assertEqual(running.stop(), 0)

    def test_one_site(self) -> None:
        """All for one domain."""
        self.start("example.test")

    def test_many_domains(self) -> None:
        """For a thousand domains."""
        self.start(*(f"d{number}.test" for number in range(1000)))
