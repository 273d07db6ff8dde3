"""
Finds a session for a request: in the cache by destination, then by endpoint, and only then a new one.

It decides nothing about what a session may carry: C{tls.carry} does, behind the cache's look-ups.
"""

from __future__ import annotations

from random import Random

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from smtpreuse.agent.connect import Connector, OpenFailed, OpeningRules
from smtpreuse.agent.session import Limits, OpenSession, Session
from smtpreuse.interfaces import IConnectionCache, IHostMemory, ILane, IMailLog, IStreamEnd
from smtpreuse.model.delivery import Blame, DeliveryRequest
from smtpreuse.model.nexthop import Candidate
from smtpreuse.model.reuse import Carrier, Profile, ReuseKey, SessionFacts
from smtpreuse.smtp.client import Client
from smtpreuse.tls.carry import serves


@frozen(kw_only=True)
class SearchRules:
    """
    @ivar by_family: whether one family of addresses goes before the other (C{smtp_address_preference}).
    @ivar most_uses: transactions that may follow the first one of a session, 0 for any number.
    @ivar fallback_age: how old in seconds a message must have been when it was taken up, to go without TLS at C{may}.
    """

    profile: Profile
    limits: Limits
    fallback_age: float
    by_family: bool = False
    most_uses: int = 0


class Finder:
    """Finds or opens the session for a request."""

    def __init__(
        self, cache: IConnectionCache, connector: Connector, hosts: IHostMemory, maillog: IMailLog, clock: IReactorTime,
        random: Random, rules: SearchRules,
    ) -> None:  # fmt: skip
        self._cache = cache
        self._connector = connector
        self._hosts = hosts
        self._maillog = maillog
        self._clock = clock
        self._random = random
        self._rules = rules

    def adopt(self, opening: OpeningRules, search: SearchRules) -> None:
        """Find and open by these rules from now on; sessions that are open keep the limits they have."""
        self._rules = search
        self._connector.adopt(opening)

    async def find(self, lane: ILane, request: DeliveryRequest) -> OpenSession:
        """
        @raise OpenFailed: when no candidate that was not tried before gives a session.
        """
        candidates = [each for each in request.route.candidates if each.endpoint not in request.tried]
        if not candidates:
            raise OpenFailed("4.3.0", "no server is left to try", Blame.NOBODY)
        if not request.fresh:
            found = await self._resting(request, candidates)
            if found is not None:
                return found
        return await self._new(lane, request, candidates)

    def fits(self, carrier: Carrier, request: DeliveryRequest) -> bool:
        """Whether a lane's session may carry this request now."""
        rules = self._rules
        return serves(carrier, request, rules.profile, self._clock.seconds(), most_uses=rules.most_uses)

    async def _resting(self, request: DeliveryRequest, candidates: list[Candidate]) -> OpenSession | None:
        needs = [self._rules.profile.needs(candidate, request.size) for candidate in candidates]
        found = await self._cache.find_destination(str(request.route.nexthop), needs)
        if found is None:
            best = candidates[0].preference
            for candidate, need in zip(candidates, needs, strict=True):
                if candidate.preference == best:
                    found = await self._cache.find_endpoint(need)
                    if found is not None:
                        break
        return None if found is None else self._awake(candidates, *found)

    def _awake(
        self, candidates: list[Candidate], key: ReuseKey, facts: SessionFacts, end: IStreamEnd
    ) -> OpenSession | None:
        """
        @return: L{None} when its server ended or spoiled it before it was ours: the request is not to see that.
        """
        candidate = next(each for each in candidates if each.endpoint == key.endpoint)
        relay = f"{candidate.host}[{candidate.endpoint.address}]"
        session = Session(end, Client.activated(), self._clock, self._rules.limits, relay)
        session.doubtful = True
        return OpenSession(session, candidate, key, facts) if session.lost is None else None

    def _spread(self, candidates: list[Candidate]) -> list[Candidate]:
        """A route lives long, and new sessions are to spread over hosts of equal preference (RFC 5321 section 5.1)."""
        if len(candidates) == 1:
            return candidates
        places = {rank: number for number, rank in enumerate(dict.fromkeys(map(self._rank, candidates)))}
        return sorted(candidates, key=lambda each: (places[self._rank(each)], self._random.random()))

    def _rank(self, candidate: Candidate) -> tuple[int, bool]:
        return candidate.preference, self._rules.by_family and candidate.endpoint.ipv6

    async def _new(self, lane: ILane, request: DeliveryRequest, candidates: list[Candidate]) -> OpenSession:
        candidates = self._spread(candidates)
        order = self._hosts.order([each.endpoint for each in candidates])
        failure: OpenFailed | None = None
        fall_back = request.activated - request.arrived >= self._rules.fallback_age
        # Routing has kept to smtp_mx_address_limit, for each nexthop: a fallback relay is not out of reach behind it.
        for index in order:
            candidate = candidates[index]
            if failure is not None and not request.fresh:
                found = await self._cache.find_endpoint(self._rules.profile.needs(candidate, request.size))
                awake = self._awake(candidates, *found) if found is not None else None
                if awake is not None:
                    return awake
            await self._cache.drop(lane.site, lane.keep)
            try:
                session = await self._connector.open(candidate, fall_back=fall_back)
            except OpenFailed as error:
                if error.blame is not Blame.OURSELVES:
                    self._hosts.failed(candidate.endpoint)
                if failure is not None:
                    self._passed_by(request, failure)
                failure = _softened(error, candidate, request.route.candidates[0])
                if failure.status.startswith("5"):
                    break
            else:
                if failure is not None:
                    self._passed_by(request, failure)
                self._hosts.answered(candidate.endpoint)
                return session
        assert failure is not None, "there is at least one candidate"
        raise failure

    def _passed_by(self, request: DeliveryRequest, failure: OpenFailed) -> None:
        """Tell the operator of a candidate that gave no session; the last one's reason stands with the outcome."""
        self._maillog.write("smtp", f"{request.queue_id}: {failure.text}" if failure.relay else failure.text)


def _softened(failure: OpenFailed, candidate: Candidate, best: Candidate) -> OpenFailed:
    """
    What a final refusal means by whose fault it is (Postfix's C{smtp_connect.c}). A relay that our own configuration
    names is our mistake, and mail waits until it is mended; and where we are found behind a better host that does not
    answer now, mail waits for that.

    @param best: of the request's route.
    """
    if candidate.configured and failure.status.startswith("5"):
        status, text = "4.3.5", f"mail server configuration problem: {failure.text}"
    elif failure.status == "5.4.6" and candidate.preference > best.preference:
        status, text = "4.4.6", failure.text
    else:
        return failure
    softened = OpenFailed(status, text, failure.blame)
    softened.relay = failure.relay
    return softened
