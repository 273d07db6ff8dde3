"""
What an agent has to say to the main process, gathered for a reactor turn: reports, the lines of the operator's log that
belong before them, and what lanes want.

One verb for many of them: a call costs some sixty microseconds, a report in it seven.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from smtpreuse.interfaces import IMailLog
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.verbs import NEWS, News, Told, Wanted
from smtpreuse.model.delivery import DeliveryReport

# Of no lane.
NO_LANE = 0


@implementer(IMailLog)
class Outbox:
    """
    In the order in which it was said.
    """

    def __init__(self, clock: IReactorTime, link: Link) -> None:
        self._clock = clock
        self._link = link
        self._told: list[Told] = []
        self._lines: list[tuple[str, str]] = []
        self._wanted: list[Wanted] = []
        self._timer: IDelayedCall | None = None

    def write(self, program: str, text: str, process: int = 0) -> None:
        """A line for the operator's log."""
        self._lines.append((program, text))
        self._arm()

    def report(self, lane: int, report: DeliveryReport) -> None:
        """A request ended."""
        self._told.append(Told(lane=lane, lines=self._taken(), report=report))
        self._arm()

    def over(self, lane: int, reason: str) -> None:
        """A lane is over."""
        self._told.append(Told(lane=lane, lines=self._taken(), over=reason))
        self._arm()

    def want(self, wanted: Wanted) -> None:
        """A lane asks."""
        self._wanted.append(wanted)
        self._arm()

    def flush(self) -> None:
        """Say it now."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if self._lines:
            self._told.append(Told(lane=NO_LANE, lines=self._taken()))
        if self._told or self._wanted:
            told, self._told = tuple(self._told), []
            wanted, self._wanted = tuple(self._wanted), []
            self._link.tell(NEWS, News(told=told, wanted=wanted))

    def _taken(self) -> tuple[tuple[str, str], ...]:
        lines, self._lines = tuple(self._lines), []
        return lines

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._gathered)

    def _gathered(self) -> None:
        self._timer = None
        self.flush()
