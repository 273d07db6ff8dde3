"""
The service after it was killed, again and again.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter, defaultdict

from twisted.trial.unittest import SynchronousTestCase

from tests.service import until
from tests.system.destination import Taken
from tests.system.injection import Injection, Letter, letters
from tests.system.world import SystemTestCase

# Seconds before a kill in which a final reply may have been written and its outcome not yet recorded.
UNRECORDED = 0.05
# A starved machine or a slow disk takes longer, and then intake does as well: one thread commits messages and outcomes
# in the order in which they come. The first message behind a final reply may be read in the same turn of the reactor as
# that reply and be committed before its outcome, the second one is submitted behind it, so that its 250 is a proof that
# the outcome is on disk. One more, for a reply whose time was noted and which was then held up on its way.
PROOF = 3
# Seconds after which no state of the machine is an excuse.
LONGEST = 5.0

# For each connection, when each message began to be sent and when it had been answered 250.
Promised = list[list[tuple[float, float]]]


class KillTests(SystemTestCase):
    """
    After SIGKILL at any moment no message that was answered 250 is lost and none is half, only those arrive twice whose
    final reply was written just before a kill, and none leaves the queue twice.
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
        # Those that are killed could not say what they ran.
        self.running.measured = False
        self.mail = letters("K")
        self.sent: list[Letter] = []
        self.accepted: dict[str, Letter] = {}
        self.killed: list[tuple[float, float]] = []
        self.promised: Promised = []

    def test_kill(self) -> None:
        """Killed twenty times while 5,000 messages come in and go out, on its start too."""
        for _ in range(self.kills):
            if self.random.random() < 0.2:
                self.kill_at_start()
            else:
                self.kill_at_work()
        self.running.start()
        injection = self.finish(self.inject(self.messages - len(self.accepted)))
        self.assertEqual((injection.refused, injection.lost), ([], 0))
        self.assertGreaterEqual(len(self.accepted), self.messages)
        self.arrived(self.sink, self.accepted)
        self.empty(self.running)
        self.assertEqual(self.running.stop(), 0)
        self.assertEqual(list((self.running.directory / "spool" / "content").iterdir()), [])
        self.check_whole(self.sink, self.sent)
        doubled = unexcused(self.sink.taken, self.killed, self.promised)
        self.assertEqual((len(doubled), doubled[:10]), (0, []))
        removed = Counter(line.split(": ")[-2] for line in self.running.maillog(": removed"))
        self.assertGreater(len(removed), self.messages // 2)
        self.assertEqual([queue_id for queue_id, times in removed.items() if times > 1], [])

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
            progress=lambda: (injection.answered, len(self.sink.taken)),
        )
        time.sleep(self.random.uniform(0.0, 0.03))
        self.kill()
        self.assertEqual(self.finish(injection).refused, [])

    def kill(self) -> None:
        """Now."""
        now = time.monotonic()
        self.running.kill()
        # What it had sent is worked off by the destination after its death.
        until(
            lambda: not self.sink.open,
            lambda: f"{len(self.sink.open)} connections without a client",
            progress=lambda: (len(self.sink.taken), len(self.sink.open)),
        )
        self.killed.append((now, time.monotonic()))

    def inject(self, count: int) -> Injection:
        """The next messages, on their way in."""
        chosen = list(itertools.islice(self.mail, max(0, count)))
        self.sent += chosen
        return Injection(self.running.port, chosen).start()

    def finish(self, injection: Injection) -> Injection:
        """All that it will ever bring, kept."""
        injection.finish()
        self.accepted |= injection.accepted
        self.promised += injection.promised
        return injection


def unexcused(taken: list[Taken], killed: list[tuple[float, float]], promised: Promised) -> list[str]:
    """
    What arrived again without a kill to blame: either the final reply was written just before it, or nothing shows that
    the service could have recorded its outcome.

    @param killed: for each kill, when it was sent and when the last connection had ended.
    """

    def excused(replied: float, kill: float, over: float) -> bool:
        if kill - UNRECORDED <= replied <= over:
            return True
        return kill - LONGEST <= replied < kill and proofs(promised, replied, kill) < PROOF

    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in taken:
        times[each.identity, each.recipient].append(each.replied)
    found = []
    for (identity, recipient), replies in times.items():
        for replied in replies[:-1]:
            if not any(excused(replied, kill, over) for kill, over in killed):
                late = min((kill - replied for kill, _ in killed if kill > replied), default=float("nan"))
                found.append(f"{identity} to {recipient}: replied {late * 1000:.0f} ms before a kill")
    return found


def proofs(promised: Promised, since: float, kill: float) -> int:
    """The most messages that one connection began to send and saw answered 250 between these times."""
    return max((sum(since < sent and answered < kill for sent, answered in each) for each in promised), default=0)


class UnexcusedTests(SynchronousTestCase):
    """The judge of the test above can say no."""

    def excused(self, first: float, promised: Promised) -> bool:
        """Whether a message may come again that was taken at this time, when the service was killed at 10.0."""
        taken = [
            Taken(identity="1", recipient="a", digest="", replied=when, connection=1, encrypted=False)
            for when in (first, 20.0)
        ]
        return not unexcused(taken, [(10.0, 10.2)], promised)

    def test_judge(self) -> None:
        """A double is excused by a kill that came within 50 ms, or had come."""
        mail = [[(9.5 + number / 100, 9.505 + number / 100) for number in range(50)]]
        for first, excused in ((9.9, False), (9.96, True), (10.1, True), (10.3, False)):
            self.assertEqual(self.excused(first, mail), excused, first)

    def test_starved(self) -> None:
        """It is excused as well while no connection has three messages answered behind it, for five seconds."""
        mail = [[(9.0, 9.1), (9.2, 9.3), (9.4, 9.5), (9.6, 9.7), (9.8, 10.05)], [(9.1, 9.2), (9.3, 9.9)]]
        for first, excused in ((8.0, False), (9.1, False), (9.2, True), (9.5, True)):
            self.assertEqual(self.excused(first, mail), excused, first)
        for first, excused in ((4.9, False), (5.1, True)):
            self.assertEqual(self.excused(first, []), excused, first)
