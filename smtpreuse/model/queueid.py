"""
Queue ids in Postfix's long form (C{src/global/mail_queue.h}): the time in base 52, C{z}, a number in base 51.

The digits have no vowels, so that ids are no words, and stand in ASCII's order, so that ids sort by time. Where Postfix
has the inode of the queue file, this has a number that the caller says is its own.
"""

from __future__ import annotations

from collections.abc import Callable

DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

_PAIRS = [high + low for high in DIGITS for low in DIGITS]
_PAIR = len(_PAIRS)


class QueueIds:
    """
    Makes queue ids, each later than the one before it even within one microsecond, or when the clock steps back.
    """

    def __init__(self, clock: Callable[[], float], number: int) -> None:
        """
        @param clock: UNIX time in seconds.
        @param number: tells these ids from those of other makers; 0 or greater, below 51 to the 9th power.
        """
        self._clock = clock
        self._last = 0
        self._second = -1
        self._head = ""
        self._tail = "z" + _base51(number)

    def next(self) -> str:
        """A new queue id."""
        now = int(self._clock() * 1_000_000)
        if now <= self._last:
            now = self._last + 1
        self._last = now
        second, micro = divmod(now, 1_000_000)
        if second != self._second:
            self._second = second
            high, low = divmod(second, _PAIR)
            self._head = _PAIRS[high // _PAIR] + _PAIRS[high % _PAIR] + _PAIRS[low]
        return self._head + _PAIRS[micro // _PAIR] + _PAIRS[micro % _PAIR] + self._tail


def _base51(number: int) -> str:
    """At least four digits: inodes have them, and log tools ask for 15 characters."""
    if not 0 <= number < 51**9:
        raise ValueError(f"number {number} of a maker of queue ids (allowed: 0 to {51**9 - 1})")
    digits = ""
    while number or len(digits) < 4:
        number, digit = divmod(number, 51)
        digits = DIGITS[digit] + digits
    return digits
