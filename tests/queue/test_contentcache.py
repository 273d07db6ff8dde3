"""
Tests of L{smtpreuse.queue.contentcache}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.queue.contentcache import ContentCache


class ContentCacheTests(SynchronousTestCase):
    """It never holds more than its limit, and gives what it holds."""

    def test_get_and_take(self) -> None:
        """What was put can be looked at, and taken once."""
        cache = ContentCache(10)
        cache.put("Q1", b"abc")
        self.assertEqual(cache.get("Q1"), b"abc")
        self.assertEqual(cache.take("Q1"), b"abc")
        self.assertIsNone(cache.take("Q1"))
        self.assertIsNone(cache.get("Q1"))
        self.assertEqual((len(cache), cache.octets), (0, 0))

    def test_oldest_goes(self) -> None:
        """A full cache lets go what came first, and no more than it must."""
        cache = ContentCache(10)
        for name in ("Q1", "Q2", "Q3"):
            cache.put(name, b"12345")
        self.assertIsNone(cache.get("Q1"))
        self.assertEqual((cache.get("Q2"), cache.get("Q3"), cache.octets), (b"12345", b"12345", 10))

    def test_too_large(self) -> None:
        """What is larger than the limit does not drive out the rest."""
        cache = ContentCache(10)
        cache.put("Q1", b"12345")
        cache.put("Q2", b"x" * 11)
        self.assertEqual((cache.get("Q1"), cache.get("Q2")), (b"12345", None))

    def test_put_again(self) -> None:
        """The same queue id is counted once, and the newer content holds."""
        cache = ContentCache(10)
        cache.put("Q1", b"12345")
        cache.put("Q1", b"123456")
        self.assertEqual((cache.get("Q1"), cache.octets), (b"123456", 6))
        cache.put("Q1", b"x" * 11)
        self.assertEqual((cache.get("Q1"), cache.octets), (None, 0))

    def test_drop(self) -> None:
        """What is dropped is gone; dropping what is not there does nothing."""
        cache = ContentCache(10)
        cache.put("Q1", b"12345")
        cache.drop("Q1")
        cache.drop("Q1")
        self.assertEqual((len(cache), cache.octets), (0, 0))

    @given(some.lists(some.tuples(some.sampled_from("abcd"), some.binary(max_size=8), some.booleans())))
    def test_sum(self, steps: list[tuple[str, bytes, bool]]) -> None:
        """Its sum is that of what it holds, and within the limit."""
        cache = ContentCache(12)
        for name, content, take in steps:
            if take:
                cache.take(name)
            else:
                cache.put(name, content)
                self.assertEqual(cache.get(name), content)
            self.assertEqual(cache.octets, sum(len(cache.get(each) or b"") for each in "abcd"))
            self.assertLessEqual(cache.octets, 12)

    def test_adopt(self) -> None:
        """With less room what came first goes at once; with more, more fits."""
        cache = ContentCache(10)
        for name in ("Q1", "Q2"):
            cache.put(name, b"12345")
        cache.adopt(5)
        self.assertEqual((cache.get("Q1"), cache.get("Q2"), cache.octets), (None, b"12345", 5))
        cache.adopt(0)
        self.assertEqual(len(cache), 0)
        cache.adopt(20)
        cache.put("Q3", b"x" * 20)
        self.assertEqual(cache.octets, 20)
