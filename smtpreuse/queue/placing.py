"""
Where a job goes: to the site of its hop's route, which is looked up when it is needed, or to an end that needs no
session.

It knows no lanes and no spool. Source of the local transports: Postfix's discard(8), error(8).
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpreuse.errors import AddressError, DeliveryProblem
from smtpreuse.interfaces import IRouter
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.route import Route
from smtpreuse.queue.hop import Hop
from smtpreuse.queue.line import Job, Likeness
from smtpreuse.queue.lookups import Lookups
from smtpreuse.queue.stock import Stock


class _Dispatcher(Protocol):
    """What placing needs of the dispatcher."""

    def routed(self, job: Job, route: Route, likeness: Likeness) -> None: ...

    def end(self, job: Job, status: str, text: str, program: str = "smtp") -> None: ...

    def want(self, hop: Hop) -> None: ...


class Placing:
    """Brings each job to where its hop leads."""

    log = Logger()

    def __init__(self, router: IRouter, clock: IReactorTime, stock: Stock, dispatcher: _Dispatcher) -> None:
        self._router = router
        self._clock = clock
        self._stock = stock
        self._dispatcher = dispatcher
        self._lookups = Lookups(self._resolve)

    def place(self, hop: Hop, job: Job) -> None:
        if hop.transport != "smtp":
            self._answer_here(hop, job)
        elif hop.route is not None and hop.route.good_until > self._clock.seconds():
            self._dispatcher.routed(job, hop.route, hop.likeness)
        else:
            hop.unrouted.append(job)
            if not hop.resolving:
                hop.resolving = True
                self._lookups.want(hop)

    async def _resolve(self, hop: Hop) -> None:
        problem: DeliveryProblem | None = None
        try:
            hop.route = route = await self._router.route(Nexthop.parse(hop.nexthop))
            hop.likeness = frozenset(route.candidates)
        except DeliveryProblem as error:
            problem = error
        except AddressError as error:
            problem = DeliveryProblem("5.1.2", str(error))
        except Exception:
            self.log.failure("routing failed: {hop}", hop=hop.text)
            problem = DeliveryProblem("4.3.0", f"internal error while routing {hop.nexthop}")
        hop.resolving = False
        jobs, hop.unrouted, more = hop.unrouted, [], hop.backlog
        for job in jobs:
            if problem is None:
                self._dispatcher.routed(job, route, hop.likeness)
            else:
                self._stock.taken(job)
                self._dispatcher.end(job, problem.status, problem.text)
        if more:
            self._dispatcher.want(hop)

    def _answer_here(self, hop: Hop, job: Job) -> None:
        """What needs no session."""
        self._stock.taken(job)
        if hop.transport == "discard":
            status, text = "2.0.0", hop.nexthop or "discarded"
        elif hop.transport == "hold":
            status, text = "4.3.0", "held by transport_maps; it was routed there after it came in"
        else:
            status, _, text = hop.nexthop.partition(" ")
            if not (status[:2] in ("4.", "5.") and text):
                status, text = "5.0.0", hop.nexthop
        self._dispatcher.end(job, status, text, hop.transport)
