"""
The lanes of an agent in a process of its own: the far side of the seam C{ILane}.

A lane asks for many requests at a time and gives them out one by one. What is left of a batch when its session is over
goes back, untouched. It knows nothing of how a request is carried.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from smtpreuse.interfaces import IDeliveryAgent, ILane
from smtpreuse.ipc.batch import Batch, read
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.outbox import Outbox
from smtpreuse.ipc.recorder import FlightRecorder
from smtpreuse.ipc.verbs import GIVEN, GIVEN_FILE, HOLD, WORK, Wanted, Work
from smtpreuse.model.delivery import DeliveryReport, DeliveryRequest, Turn, untouched
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Site


class Workbench:
    """
    All lanes that this process was given.

    @ivar fits: whether a lane's session may carry a request now.
    """

    log = Logger()

    def __init__(
        self, link: Link, agent: IDeliveryAgent, outbox: Outbox, recorder: FlightRecorder, clock: IReactorTime,
        fits: Callable[[Carrier, DeliveryRequest], bool],
    ) -> None:  # fmt: skip
        """
        @param link: to the main process.
        """
        self.fits = fits
        self.outbox = outbox
        self.recorder = recorder
        self.clock = clock
        self._agent = agent
        self._lanes: dict[int, RemoteLane] = {}
        self._files: dict[int, Descriptor] = {}
        link.serve(WORK, self._work)
        link.serve(GIVEN, self._given)
        link.serve(GIVEN_FILE, self._given_file)
        link.serve(HOLD, self._hold)

    def __len__(self) -> int:
        return len(self._lanes)

    def done(self, ticket: int) -> None:
        """A request was reported."""
        file = self._files.pop(ticket, None)
        if file is not None:
            file.close()

    def forget(self, lane: int) -> None:
        """A lane is over."""
        self._lanes.pop(lane, None)

    def _work(self, work: Work) -> None:
        lane = self._lanes[work.lane] = RemoteLane(self, work.lane, work.site)
        self._agent.work(lane)

    def _given(self, octets: bytes) -> None:
        for batch in read(octets):
            self._put(batch)

    def _given_file(self, octets: bytes, file: Descriptor) -> None:
        # A name under which the kernel opens it anew, so that each reader has a place of its own in it.
        for batch in read(octets, f"/proc/{os.getpid()}/fd/{file.fileno()}"):
            for request in batch.turn.requests:
                self._files[request.ticket] = file
            self._put(batch)

    def _put(self, batch: Batch) -> None:
        lane = self._lanes.get(batch.lane)
        if lane is not None:
            lane.put(batch)
            return
        self.log.error("a batch came for a lane that is over: lane={lane}", lane=batch.lane)
        for request in batch.turn.requests:
            self.outbox.report(batch.lane, untouched(request, self.clock.seconds()))
            self.done(request.ticket)

    def _hold(self, held: dict[int, bool]) -> None:
        for number, each in held.items():
            lane = self._lanes.get(number)
            if lane is not None:
                lane.hold(each)


@implementer(ILane)
class RemoteLane:
    """
    @ivar keep: how many sessions of the site may rest beside this lane's, as of its last batch.
    @ivar held: whether no transaction may begin now.
    """

    def __init__(self, bench: Workbench, number: int, site: Site) -> None:
        self.site = site
        self.keep = 0
        self.held = False
        self._bench = bench
        self._number = number
        self._requests: deque[DeliveryRequest] = deque()
        self._follow_after: int | None = None
        # When the session was opened that the requests were chosen for.
        self._opened = 0.0
        self._answer: Deferred[Turn] | None = None

    async def next(self, carrier: Carrier | None, most: int) -> Turn:
        request = self._fitting(carrier) if carrier is not None else None
        if request is not None:
            return Turn(requests=(request,))
        self._give_back()
        opened, uses = (carrier.facts.opened, carrier.facts.uses) if carrier is not None else (0.0, 0)
        known = opened == self._opened
        self._opened = opened
        self._answer = Deferred()
        self._bench.outbox.want(Wanted(lane=self._number, carrier=None if known else carrier, uses=uses))
        turn = await self._answer
        return Turn(requests=(self._taken(),)) if self._requests else turn

    async def follow(self, carrier: Carrier) -> DeliveryRequest | None:
        after = self._follow_after
        return self._fitting(carrier) if after is not None and carrier.facts.uses > after else None

    def dotted(self, ticket: int) -> None:
        self._bench.recorder.dotted(ticket)

    def report(self, report: DeliveryReport) -> None:
        self._bench.outbox.report(self._number, report)
        self._bench.done(report.ticket)

    def over(self, reason: str) -> None:
        self._give_back()
        self._bench.forget(self._number)
        self._bench.outbox.over(self._number, reason)

    def put(self, batch: Batch) -> None:
        """What the queue gives."""
        self.keep, self.held = batch.keep, batch.held
        self._follow_after = batch.turn.follow_after
        self._requests.extend(batch.turn.requests)
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.callback(batch.turn)

    def hold(self, held: bool) -> None:
        """Whether anything may begin from now on. What was given and not begun goes back: it may have a new route."""
        self.held = held
        if held:
            self._give_back()

    def _fitting(self, carrier: Carrier) -> DeliveryRequest | None:
        """
        The next one of the batch, if that was given for this session, which may still carry it: it may have grown old
        meanwhile, or the configuration be another one. What it may not carry goes back.
        """
        if carrier.facts.opened != self._opened or self.held:
            return None
        while self._requests:
            if self._bench.fits(carrier, self._requests[0]):
                return self._taken()
            self.report(untouched(self._requests.popleft(), self._bench.clock.seconds()))
        return None

    def _taken(self) -> DeliveryRequest:
        request = self._requests.popleft()
        self._bench.recorder.begun(request.ticket)
        return request

    def _give_back(self) -> None:
        while self._requests:
            self.report(untouched(self._requests.popleft(), self._bench.clock.seconds()))
