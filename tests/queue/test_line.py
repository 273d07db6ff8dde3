"""
Tests of L{smtpreuse.queue.line}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.queue.line import Job, Likeness, Lines
from tests.fakes import candidate
from tests.queue.world import endpoint, message

ALIKE: Likeness = frozenset({candidate()})
OTHER: Likeness = frozenset({candidate("mx.example.test", "192.0.2.2")})


def job(name: str, since: float = 0.0, *, retry: bool = False, **values: object) -> Job:
    """One of this name."""
    made = Job(message=message(name), hop="smtp:example.com", retry=retry, since=since)
    for key, value in values.items():
        setattr(made, key, value)
    return made


class LinesTests(SynchronousTestCase):
    """The oldest that fits goes first; special ones before all; fresh mail three to one before retries."""

    def setUp(self) -> None:
        self.lines = Lines()

    def put(self, *jobs: Job, likeness: Likeness = ALIKE) -> None:
        """They wait."""
        for each in jobs:
            self.lines.put(each, likeness)

    def taken(self) -> list[str]:
        """All, in the order in which they are given out."""
        names = []
        while (job := self.lines.take(None)) is not None:
            names.append(job.message.queue_id)
        return names

    def test_empty(self) -> None:
        """Nothing waits."""
        self.assertEqual((len(self.lines), self.lines.take(None), self.lines.oldest()), (0, None, None))

    def test_in_order(self) -> None:
        """First come, first served."""
        self.put(job("a", 1), job("b", 2), job("c", 3))
        self.assertEqual(len(self.lines), 3)
        self.assertEqual(self.taken(), ["a", "b", "c"])
        self.assertEqual(len(self.lines), 0)

    def test_oldest_of_all_lines(self) -> None:
        """The oldest of whichever line."""
        self.put(job("b", 2), job("d", 4))
        self.put(job("a", 1), job("c", 3), likeness=OTHER)
        self.assertEqual(self.taken(), ["a", "b", "c", "d"])

    def test_three_to_one(self) -> None:
        """Three fresh ones, then a retry, where both wait; whatever is left after."""
        self.put(*(job(f"f{number}", 10 + number) for number in range(7)))
        self.put(*(job(f"r{number}", number, retry=True) for number in range(4)))
        self.assertEqual(self.taken(), ["f0", "f1", "f2", "r0", "f3", "f4", "f5", "r1", "f6", "r2", "r3"])

    def test_retries_alone(self) -> None:
        """Retries do not wait for fresh mail that is not there."""
        self.put(job("r0", retry=True), job("r1", 1, retry=True))
        self.assertEqual(self.taken(), ["r0", "r1"])

    def test_special_first(self) -> None:
        """What was out before goes first of all, in its order, also where it is younger."""
        self.put(job("a", 1), job("b", 2))
        self.put(job("s", 9, fresh=True), job("t", 8, tried=frozenset({endpoint(1)})))
        self.assertEqual(len(self.lines), 4)
        self.assertEqual(self.taken(), ["s", "t", "a", "b"])

    def test_fits(self) -> None:
        """Only what fits; the rest keeps its place."""
        self.put(job("a", 1), job("b", 2))
        self.put(job("c", 3), likeness=OTHER)
        self.put(job("s", fresh=True), job("t", fresh=True))
        found = self.lines.take(lambda each: each.message.queue_id in "ct")
        assert found is not None
        self.assertEqual(found.message.queue_id, "t")
        found = self.lines.take(lambda each: each.message.queue_id in "ct")
        assert found is not None
        self.assertEqual(found.message.queue_id, "c")
        self.assertIsNone(self.lines.take(lambda each: False))
        self.assertEqual(self.taken(), ["s", "a", "b"])

    def test_one_verdict_for_a_line(self) -> None:
        """Only the first of each line is asked about."""
        self.put(*(job(f"a{number}", number) for number in range(100)))
        self.put(*(job(f"b{number}", number) for number in range(100)), likeness=OTHER)
        asked: list[str] = []

        def no(each: Job) -> bool:
            asked.append(each.message.queue_id)
            return False

        self.assertIsNone(self.lines.take(no))
        self.assertEqual(asked, ["a0", "b0"])

    def test_nothing_fits_counts_for_nothing(self) -> None:
        """Asking in vain does not shift the three to one."""
        self.put(job("f0", 1), job("f1", 2), job("r0", 0, retry=True))
        for _ in range(3):
            self.lines.take(lambda each: False)
        self.assertEqual(self.taken(), ["f0", "f1", "r0"])

    def test_oldest(self) -> None:
        """Of special ones, fresh ones and retries."""
        for oldest in ("s", "f", "r"):
            self.lines = Lines()
            ages = {"s": 5.0, "f": 5.0, "r": 5.0, oldest: 1.0}
            self.put(job("s", ages["s"], fresh=True), job("f", ages["f"]), job("r", ages["r"], retry=True))
            found = self.lines.oldest()
            assert found is not None
            self.assertEqual(found.message.queue_id, oldest)
            self.assertEqual(len(self.lines), 3)

    def test_remove(self) -> None:
        """All of which it is true go, from everywhere; the rest stays in order."""
        self.put(job("s", fresh=True), job("S", fresh=True), job("a", 1), job("A", 2), job("R", 3, retry=True))
        self.put(job("B", 4), likeness=OTHER)
        gone = self.lines.remove(lambda each: each.message.queue_id.isupper())
        self.assertEqual(sorted(each.message.queue_id for each in gone), ["A", "B", "R", "S"])
        self.assertEqual(len(self.lines), 2)
        self.assertEqual(self.taken(), ["s", "a"])

    def test_new(self) -> None:
        """What just came has had no session and was nowhere."""
        new = Job(message=message("a"), hop="smtp:example.com", retry=False, since=0.0)
        self.assertEqual((new.sessions, new.tried, new.route), (0, frozenset(), None))
        self.assertEqual((new.fresh, new.stranded), (False, False))

    def test_equal_ages(self) -> None:
        """Of two that are due since the same moment, the one whose line was there first."""
        self.put(job("a", 1))
        self.put(job("b", 1), likeness=OTHER)
        self.assertEqual(self.taken(), ["a", "b"])

    def test_no_line_is_left(self) -> None:
        """An empty line is forgotten: likenesses come and go with every route."""
        for number in range(50):
            self.put(job("a"), likeness=frozenset({candidate(f"mx{number}.example.com")}))
            self.taken()
        self.assertEqual(self.lines._lines, {})
        self.put(job("a"), likeness=OTHER)
        self.lines.remove(lambda each: True)
        self.assertEqual(self.lines._lines, {})

    @given(st.lists(st.one_of(
        st.tuples(st.booleans(), st.booleans(), st.booleans()), st.sampled_from(["take", "take if", "remove"])
    ), max_size=40))  # fmt: skip
    def test_nothing_is_lost(self, steps: list[tuple[bool, bool, bool] | str]) -> None:
        """Whatever is put in comes out once, and the length is what is in."""
        lines, inside, count = Lines(), set(), 0
        for step in steps:
            if isinstance(step, tuple):
                count += 1
                retry, special, other = step
                lines.put(job(str(count), count, retry=retry, fresh=special), OTHER if other else ALIKE)
                inside.add(str(count))
            elif step == "remove":
                for gone in lines.remove(lambda each: int(each.message.queue_id) % 3 == 0):
                    inside.remove(gone.message.queue_id)
                self.assertFalse([name for name in inside if int(name) % 3 == 0])
            else:
                fits = None if step == "take" else (lambda each: int(each.message.queue_id) % 2 == 0)
                found = lines.take(fits)
                if found is not None:
                    inside.remove(found.message.queue_id)
                elif step == "take":
                    self.assertEqual(inside, set())
            self.assertEqual(len(lines), len(inside))
