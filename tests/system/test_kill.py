"""
The service after it was killed, again and again.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import defaultdict

from tests.service import until
from tests.system.destination import Taken
from tests.system.injection import Injection, Letter, letters
from tests.system.world import SystemTestCase

# Seconds before a kill in which a final reply may have been written and its outcome not yet recorded.
UNRECORDED = 0.05


class KillTests(SystemTestCase):
    """
    After SIGKILL at any moment no message that was answered 250 is lost and none is half, and only those arrive twice
    whose final reply was written just before a kill.
    """

    messages = 5000
    kills = 20

    def setUp(self) -> None:
        seed = int(os.environ.get("SMTPREUSE_SEED", time.time_ns() % 2**32))
        # So that a failure can be had again.
        print(f"\n{self.id()}: SMTPREUSE_SEED={seed}")
        self.random = random.Random(seed)
        self.sink = self.destination(tls=True)
        self.running = self.service(self.sink)
        self.mail = letters("K")
        self.sent: list[Letter] = []
        self.accepted: dict[str, Letter] = {}
        self.killed: list[tuple[float, float]] = []

    def test_kill(self) -> None:
        """Killed twenty times while 5,000 messages come in and go out, on its start too."""
        for _ in range(self.kills):
            if self.random.random() < 0.2:
                self.kill_at_start()
            else:
                self.kill_at_work()
        self.running.start()
        injection = self.inject(self.messages - len(self.accepted)).finish()
        self.assertEqual((injection.refused, injection.lost), ([], 0))
        self.accepted |= injection.accepted
        self.assertGreaterEqual(len(self.accepted), self.messages)
        self.arrived(self.sink, self.accepted)
        self.empty(self.running)
        self.assertEqual(self.running.stop(), 0)
        self.assertEqual(list((self.running.directory / "spool" / "content").iterdir()), [])
        self.check_whole(self.sink, self.sent)
        doubled = unexcused(self.sink.taken, self.killed)
        self.assertEqual((len(doubled), doubled[:10]), (0, []))

    def kill_at_start(self) -> None:
        """At any moment from the first to a little behind the last of a start."""
        self.running.launch()
        time.sleep(self.random.uniform(0.0, 1.5))
        self.kill()

    def kill_at_work(self) -> None:
        """When so many messages came in and went out, or when there is nothing more to do."""
        self.running.start()
        share = self.messages // self.kills
        before = len(self.sink.taken)
        injection = self.inject(share)
        enough = self.random.randrange(2 * share)
        until(
            lambda: len(injection.accepted) + len(self.sink.taken) - before >= enough or not injection.under_way,
            lambda: f"{len(injection.accepted)} came in, {len(self.sink.taken) - before} went out: not {enough}",
        )
        time.sleep(self.random.uniform(0.0, 0.03))
        self.kill()
        injection.finish()
        self.assertEqual(injection.refused, [])
        self.accepted |= injection.accepted

    def kill(self) -> None:
        """Now."""
        now = time.monotonic()
        self.running.kill()
        # What it had sent is worked off by the destination after its death.
        until(lambda: not self.sink.open, lambda: f"{len(self.sink.open)} connections without a client")
        self.killed.append((now, time.monotonic()))

    def inject(self, count: int) -> Injection:
        """The next messages, on their way in."""
        chosen = list(itertools.islice(self.mail, max(0, count)))
        self.sent += chosen
        return Injection(self.running.port, chosen).start()


def unexcused(taken: list[Taken], killed: list[tuple[float, float]]) -> list[str]:
    """
    What arrived again without a kill to blame.

    @param killed: for each kill, when it was sent and when the last connection had ended.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in taken:
        times[each.identity, each.recipient].append(each.replied)
    found = []
    for (identity, recipient), replies in times.items():
        for replied in replies[:-1]:
            if not any(kill - UNRECORDED <= replied <= over for kill, over in killed):
                late = min((kill - replied for kill, _ in killed if kill > replied), default=float("nan"))
                found.append(f"{identity} to {recipient}: replied {late * 1000:.0f} ms before a kill")
    return found


class UnexcusedTests(SystemTestCase):
    """The judge of the test above can say no."""

    def test_judge(self) -> None:
        """A double is excused by a kill that came within 50 ms, or had come."""
        for first, excused in ((9.9, False), (9.96, True), (10.1, True), (10.3, False)):
            taken = [
                Taken(identity="1", recipient="a", digest="", replied=when, connection=1, encrypted=False)
                for when in (first, 20.0)
            ]
            self.assertEqual(not unexcused(taken, [(10.0, 10.2)]), excused, first)
