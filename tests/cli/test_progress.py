"""
Tests of L{smtpreuse.cli.progress}.
"""

from __future__ import annotations

from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.progress import Progress


class Terminal(StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class ProgressTests(SynchronousTestCase):
    """A bar is drawn on a terminal, and on nothing else."""

    def test_terminal(self) -> None:
        """The bar grows on its line, and goes when it is done."""
        terminal = Terminal()
        progress = Progress(terminal, 4, "delivered")
        progress.show(1)
        progress.show(4)
        progress.clear()
        self.assertEqual(
            terminal.getvalue(),
            "\r[" + "#" * 10 + "." * 30 + "] 1/4 delivered\r[" + "#" * 40 + "] 4/4 delivered\r\x1b[K",
        )

    def test_no_terminal(self) -> None:
        """A file gets nothing."""
        file = StringIO()
        progress = Progress(file, 4, "delivered")
        progress.show(1)
        progress.clear()
        self.assertEqual(file.getvalue(), "")
