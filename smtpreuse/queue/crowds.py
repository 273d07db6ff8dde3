"""
Hops that have more in the spool while so much waits for their site already that nothing more is loaded for it.

Pure books: by site, in the order in which they came. Whether a site is crowded is known elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpreuse.queue.hop import Hop
from smtpreuse.queue.sitequeue import SiteQueue


class Crowds:
    """The hops that wait."""

    def __init__(self, want: Callable[[Hop], None]) -> None:
        """
        @param want: called with a hop for whose site there is room again.
        """
        self._want = want
        self._hops: dict[str, dict[Hop, None]] = {}

    def put(self, queue: SiteQueue, hop: Hop) -> None:
        """This hop waits until its site is less crowded."""
        self._hops.setdefault(queue.site.name, {})[hop] = None

    def less(self, queue: SiteQueue) -> None:
        """Something less waits for this site: if there is room now, one hop may go on."""
        hops = self._hops.get(queue.site.name)
        if hops is not None and not queue.crowded:
            hop = next(iter(hops))
            self._drop(queue.site.name, hop)
            self._want(hop)

    def tidy(self, sites: dict[str, SiteQueue]) -> None:
        """Let all go on whose sites are not crowded any more: those that came before them may have had nothing."""
        for name, hops in list(self._hops.items()):
            queue = sites.get(name)
            if queue is None or not queue.crowded:
                del self._hops[name]
                for hop in hops:
                    self._want(hop)

    def _drop(self, name: str, hop: Hop) -> None:
        hops = self._hops[name]
        del hops[hop]
        if not hops:
            del self._hops[name]
