"""
A progress bar on a terminal; nothing where there is none.
"""

from __future__ import annotations

from typing import TextIO

WIDTH = 40


class Progress:
    """Draws how much of something is done, on one line, over and over."""

    def __init__(self, terminal: TextIO, total: int, what: str) -> None:
        """
        @param terminal: is drawn on when it is one.
        @param what: is counted.
        """
        self._terminal = terminal
        self._total = total
        self._what = what
        self._shown = terminal.isatty()

    def show(self, done: int) -> None:
        """So much is done."""
        if self._shown:
            filled = WIDTH * done // self._total
            bar = "#" * filled + "." * (WIDTH - filled)
            self._terminal.write(f"\r[{bar}] {done}/{self._total} {self._what}")
            self._terminal.flush()

    def clear(self) -> None:
        """Wipe the line."""
        if self._shown:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()
