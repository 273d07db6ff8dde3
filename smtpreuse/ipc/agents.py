"""
Agents in processes of their own, as the queue sees them: the near side of the seams C{IDeliveryAgent} and C{ILane}.

When one dies, what it had in hand is told apart by its flight recorder: untouched, or unknown, or what it was just
about, which may be why it died. It knows no process and starts none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import count, groupby

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from smtpreuse.errors import LinkBroken, LinkError
from smtpreuse.interfaces import IDeliveryAgent, ILane, IMailLog
from smtpreuse.ipc.batch import Batch, written
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.outbox import NO_LANE
from smtpreuse.ipc.parcel import NO_FAMILY
from smtpreuse.ipc.recorder import FlightRecorder
from smtpreuse.ipc.verbs import ABORT, GIVEN, GIVEN_FILE, HOLD, HOST, NEWS, WORK, HostNews, News, Wanted, Work
from smtpreuse.model.content import FileContent
from smtpreuse.model.delivery import (
    Blame,
    DeliveryReport,
    DeliveryRequest,
    Ending,
    Outcome,
    Turn,
    untouched,
)
from smtpreuse.model.reuse import Carrier

# Requests of one batch; the queue gives fewer where they are better given to others.
_MOST = 50
# How often it is looked whether work is held up, in seconds, while lanes are at work.
_LOOK = 0.25


@define(eq=False)
class _Lane:
    """
    @ivar given: by ticket, what it has not reported.
    @ivar carrier: its session, as it was when the lane asked last.
    @ivar held: what its agent was told last of whether anything may begin.
    """

    lane: ILane
    carrier: Carrier | None = None
    held: bool = False
    given: dict[int, DeliveryRequest] = field(factory=dict)


@implementer(IDeliveryAgent)
class RemoteAgent:
    """
    One of them.

    @ivar process: its process id.
    """

    log = Logger()

    def __init__(
        self, link: Link, process: int, recorder: FlightRecorder, maillog: IMailLog, clock: IReactorTime,
        gossip: Callable[[RemoteAgent, HostNews], object],
    ) -> None:  # fmt: skip
        """
        @param gossip: told what it learned of an endpoint.
        """
        self.process = process
        self._link = link
        self._recorder = recorder
        self._maillog = maillog
        self._clock = clock
        self._numbers = count(NO_LANE + 1)
        self._lanes: dict[int, _Lane] = {}
        self._gossip = gossip
        self._giving: list[Batch] = []
        link.serve(NEWS, self._news)
        link.serve(HOST, self._heard)

    def __len__(self) -> int:
        return len(self._lanes)

    def __repr__(self) -> str:
        return f"<RemoteAgent {self._link.name}: {len(self._lanes)} lanes>"

    def work(self, lane: ILane) -> None:
        number = next(self._numbers)
        self._lanes[number] = _Lane(lane)
        self._link.tell(WORK, Work(lane=number, site=lane.site))

    def hear(self, news: HostNews) -> None:
        """Another agent learned something of an endpoint."""
        self._link.tell(HOST, news)

    def abort(self) -> None:
        """End the sessions that lanes have, whatever is going on; what they carry is reported as it stands."""
        self._link.tell(ABORT, None)

    def look(self) -> None:
        """See which lanes are held up, and pass on what has changed; behind what they were given before."""
        self._given()
        changed = {number: not each.held for number, each in self._lanes.items() if each.lane.held is not each.held}
        for number, held in changed.items():
            self._lanes[number].held = held
        if changed:
            self._link.tell(HOLD, changed)

    def ended(self) -> None:
        """Its process is gone, or its link."""
        begun, dotted = self._recorder.entries()
        self._recorder.close()
        lanes, self._lanes = self._lanes, {}
        now = self._clock.seconds()
        for each in lanes.values():
            for ticket, request in each.given.items():
                if ticket in dotted:
                    each.lane.report(_unknown(request, now))
                elif ticket not in begun:
                    each.lane.report(untouched(request, now))
            each.lane.over(f"{self._link.name} ended")

    # What it says

    def _next(self, wanted: Wanted) -> None:
        each = self._lanes.get(wanted.lane)
        if each is None:
            raise LinkBroken(f"asks for lane {wanted.lane}, which is none")
        carrier = wanted.carrier or each.carrier
        if not wanted.uses:
            each.carrier = wanted.carrier
        elif carrier is None:
            raise LinkBroken(f"asks for lane {wanted.lane} with a session that was never shown")
        else:
            each.carrier = Carrier(key=carrier.key, facts=evolve(carrier.facts, uses=wanted.uses))
        Deferred.fromCoroutine(self._answer(wanted.lane, each)).addErrback(
            lambda failure: self.log.failure("lane was not answered: {site}", failure=failure, site=each.lane.site.name)
        )

    async def _answer(self, number: int, each: _Lane) -> None:
        turn = await each.lane.next(each.carrier, _MOST)
        if number not in self._lanes:
            # It is over, and what it was given went back with that.
            return
        each.given.update((request.ticket, request) for request in turn.requests)
        each.held = each.lane.held
        for part in _parts(turn):
            batch = Batch(lane=number, turn=part, keep=each.lane.keep, held=each.held)
            if part.requests and isinstance(part.requests[0].content, FileContent):
                await self._give_file(each, batch, part.requests[0], part.requests[0].content)
            else:
                self._give(batch)

    def _give(self, batch: Batch) -> None:
        if not self._giving:
            self._clock.callLater(0, self._given)
        self._giving.append(batch)

    def _given(self) -> None:
        giving, self._giving = self._giving, []
        if giving:
            self._link.tell(GIVEN, written(giving))

    async def _give_file(self, each: _Lane, batch: Batch, request: DeliveryRequest, content: FileContent) -> None:
        try:
            file = Descriptor(os.open(content.path, os.O_RDONLY | os.O_CLOEXEC), NO_FAMILY)
            self._given()
            await self._link.ask(GIVEN_FILE, written((batch,)), file)
        except (OSError, LinkError) as error:
            self.log.error("{queue_id}: content not given: {error}", queue_id=request.queue_id, error=str(error))
            if each.given.pop(request.ticket, None) is not None:
                text = "content cannot be given to a delivery agent"
                each.lane.report(_failed(request, self._clock.seconds(), Ending.REFUSED, text))
            self._give(evolve(batch, turn=Turn(more=True)))

    def _heard(self, news: HostNews) -> None:
        self._gossip(self, news)

    def _news(self, news: News) -> None:
        for each in news.told:
            for program, text in each.lines:
                self._maillog.write(program, text, self.process)
            lane = self._lanes.get(each.lane)
            if lane is None:
                continue
            if each.report is not None:
                self._reported(lane, each.report)
            if each.over is not None:
                del self._lanes[each.lane]
                lane.lane.over(each.over)
        for wanted in news.wanted:
            self._next(wanted)

    def _reported(self, lane: _Lane, report: DeliveryReport) -> None:
        """Every recipient is to have its outcome: one that had none would be forgotten until the next start."""
        request = lane.given.pop(report.ticket, None)
        if request is None:
            raise LinkBroken(f"reports request {report.ticket}, which it does not have")
        if tuple(outcome.recipient for outcome in report.outcomes) != request.recipients:
            lane.lane.report(_unknown(request, self._clock.seconds()))
            raise LinkBroken(f"reports other recipients of {request.queue_id} than it was given")
        lane.lane.report(report)


def _parts(turn: Turn) -> Iterable[Turn]:
    """A turn in batches: content in a file goes alone."""
    if not turn.requests:
        yield turn
    for in_file, group in groupby(turn.requests, lambda request: isinstance(request.content, FileContent)):
        requests = tuple(group)
        for part in ((request,) for request in requests) if in_file else (requests,):
            yield evolve(turn, requests=part)


def _unknown(request: DeliveryRequest, now: float) -> DeliveryReport:
    return _failed(
        request, now, Ending.UNKNOWN,
        "delivery agent ended while sending end of data -- message may be sent more than once",
    )  # fmt: skip


def _failed(request: DeliveryRequest, now: float, ending: Ending, text: str) -> DeliveryReport:
    """A report of a fault of our own."""
    outcomes = tuple(
        Outcome(recipient=recipient, ending=ending, status="4.3.0", text=text) for recipient in request.recipients
    )
    return DeliveryReport(
        ticket=request.ticket, outcomes=outcomes, started=now, ready=now, finished=now, blame=Blame.OURSELVES,
        exhausted=True,
    )  # fmt: skip


@implementer(IDeliveryAgent)
class AgentPool:
    """
    The agents that there are now. Lanes that are opened while there is none wait for one.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._agents: list[RemoteAgent] = []
        self._waiting: list[ILane] = []
        self._looking = False

    def work(self, lane: ILane) -> None:
        if not self._agents:
            self._waiting.append(lane)
            return
        min(self._agents, key=len).work(lane)
        if not self._looking:
            self._looking = True
            self._clock.callLater(_LOOK, self._look)

    def join(self, agent: RemoteAgent) -> None:
        """There is one more."""
        self._agents.append(agent)
        waiting, self._waiting = self._waiting, []
        for lane in waiting:
            self.work(lane)

    def part(self, agent: RemoteAgent) -> None:
        """There is one less; what it had goes back."""
        self._agents.remove(agent)
        agent.ended()

    def gossip(self, source: RemoteAgent, news: HostNews) -> None:
        """What one learned of an endpoint, the others are to know."""
        for agent in self._agents:
            if agent is not source:
                agent.hear(news)

    def abort(self) -> None:
        """End what lanes do, and those that wait for an agent."""
        for agent in self._agents:
            agent.abort()
        self.dismiss()

    def dismiss(self) -> None:
        """Lanes that wait for an agent need not wait any longer."""
        waiting, self._waiting = self._waiting, []
        for lane in waiting:
            lane.over("there is no agent")

    def _look(self) -> None:
        self._looking = any(self._agents)
        if self._looking:
            self._clock.callLater(_LOOK, self._look)
        self.look()

    def look(self) -> None:
        """Pass on to the agents what holds their lanes up."""
        for agent in self._agents:
            agent.look()
