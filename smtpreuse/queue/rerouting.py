"""
What becomes of mail in memory when the configuration of its ways is another one: nothing goes on by what held before.

It knows neither the old configuration nor the new one. Routes are asked for anew; where hops changed too, the spool has
the new ones, and what waits here is loaded from there again.
"""

from __future__ import annotations

from collections.abc import Coroutine

from attrs import evolve
from twisted.internet.defer import Deferred

from smtpreuse.queue.line import Job
from smtpreuse.queue.loader import Loader
from smtpreuse.queue.placing import Placing
from smtpreuse.queue.stock import Stock
from smtpreuse.queue.traffic import Traffic


class Rerouting:
    """Brings all that waits on its new way."""

    def __init__(self, stock: Stock, traffic: Traffic, placing: Placing, loader: Loader) -> None:
        self._stock = stock
        self._traffic = traffic
        self._placing = placing
        self._loader = loader

    def reroute(self) -> None:
        """
        All routes lead elsewhere, or ask for something else, from now on: what waits gets another one, and what was
        given to a lane comes back when its transaction has not begun.
        """
        jobs = self._recalled()
        for job in jobs:
            self._placing.place(self._stock.hop(job.hop), job)
        self._traffic.wake_all()

    async def rehop(self, change: Coroutine[Deferred[object], object, object]) -> None:
        """
        Recipients have other hops from now on.

        @param change: gives those in the spool their new hops. Nothing is loaded meanwhile: what was loaded under the
            old hop is not to be taken for something else under the new one.
        @raise SpoolError: when the change failed; recipients keep their hops.
        """
        self._set_aside()
        try:
            await self._loader.halt()
            await change
        finally:
            # Also what came in before the spool was told, and was stored under its old hop.
            self._set_aside()
            self._loader.resume()

    def again(self, job: Job) -> bool:
        """
        A job is to be given out once more.

        @return: whether it may; one whose hop may be another one by now was given back to the spool.
        """
        if not self._stock.astray(job):
            return True
        self._stock.forget(job)
        self._loader.rescan()
        return False

    def _recalled(self) -> list[Job]:
        """What waits at the sites, in order; and no route is good any more."""
        for hop in self._stock.hops():
            if hop.route is not None:
                # Not forgotten: how much may be loaded for it shows by its site.
                hop.route = evolve(hop.route, good_until=float("-inf"))
        return self._traffic.recall()

    def _set_aside(self) -> None:
        """What waits is left to the spool; what lanes have, and what is not recorded yet, is not loaded once more."""
        jobs = self._recalled()
        for hop in self._stock.hops():
            unrouted, hop.unrouted = hop.unrouted, []
            jobs += unrouted
        for job in jobs:
            self._stock.taken(job)
            self._stock.forget(job)
        self._stock.stray()
        self._traffic.wake_all()
