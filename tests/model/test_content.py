"""
Tests of L{smtpreuse.model.content}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.content import MemoryContent


class MemoryContentTests(SynchronousTestCase):
    """Content in memory knows its size."""

    def test_size(self) -> None:
        """In octets."""
        self.assertEqual(MemoryContent(b"").size, 0)
        self.assertEqual(MemoryContent("grün\r\n".encode()).size, 7)
