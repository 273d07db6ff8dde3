"""
How many sessions rest in other processes: what the queue looks at, and what keeps it up to date.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from smtpreuse.interfaces import IResting
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.verbs import COUNTED, DROP, Drop
from smtpreuse.model.route import Site


@implementer(IResting)
class RestingCounts:
    """
    The sum of what each process that keeps sessions has said last.
    """

    def __init__(self) -> None:
        self._counts: dict[Link, dict[str, int]] = {}

    def __repr__(self) -> str:
        return f"<RestingCounts {self.resting(None)} in {len(self._counts)} processes>"

    def met(self, link: Link) -> None:
        """A process at the other end of this link keeps sessions."""
        counts = self._counts[link] = {}

        def counted(news: dict[str, int]) -> None:
            for name, number in news.items():
                if number:
                    counts[name] = number
                else:
                    counts.pop(name, None)

        link.serve(COUNTED, counted)
        link.when_lost(lambda: self._counts.pop(link, None))

    def resting(self, site: Site | None) -> int:
        """See L{IResting.resting}."""
        if site is None:
            return sum(sum(counts.values()) for counts in self._counts.values())
        return sum(counts.get(site.name, 0) for counts in self._counts.values())

    async def drop(self, site: Site | None, keep: int) -> None:
        """See L{IResting.drop}."""
        left = keep
        for link, counts in self._counts.items():
            rest = sum(counts.values()) if site is None else counts.get(site.name, 0)
            if rest > left:
                link.tell(DROP, Drop(site=site, keep=left))
            left -= min(left, rest)


class CountTeller:
    """
    Tells the main process, once for all that changed in a reactor turn.
    """

    def __init__(self, clock: IReactorTime, link: Link, count: Callable[[Site], int]) -> None:
        """
        @param count: how many sessions of a site rest here.
        """
        self._clock = clock
        self._link = link
        self._count = count
        self._changed: set[Site] = set()

    def changed(self, site: Site) -> None:
        """Of this site there are more or less."""
        if not self._changed:
            self._clock.callLater(0, self._tell)
        self._changed.add(site)

    def _tell(self) -> None:
        changed, self._changed = self._changed, set()
        self._link.tell(COUNTED, {site.name: self._count(site) for site in changed})
