"""
The router: hops by configuration, routes by the domain name system, remembered while they are good.

Source: postconf(5), C{smtp_fallback_relay}; Postfix's C{smtp_connect.c} for what it means when a relay of our own
configuration cannot be found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial

from attrs import evolve
from zope.interface import implementer

from smtpreuse.config.settings import Settings
from smtpreuse.dns.memory import Memory
from smtpreuse.errors import DeliveryProblem, PolicyError, RouteError
from smtpreuse.interfaces import IResolver, IRouter
from smtpreuse.model.nexthop import Candidate, Endpoint, Nexthop
from smtpreuse.model.route import Route
from smtpreuse.routing.candidates import Candidates, Found
from smtpreuse.routing.ourselves import Ourselves, is_local
from smtpreuse.routing.site import site_of
from smtpreuse.routing.transport import Transport
from smtpreuse.tls.policy import Policies

# Seconds a route is good for: a TTL of 0 does not cost look-ups for every message, and one of a week does not keep us
# from noticing a change.
LEAST = 5.0
MOST = 3600.0
# When a host was left out because its name server did not answer.
PARTIAL = 60.0
# About 5 KiB each.
_MOST_ROUTES = 20_000
# A fallback relay comes after every MX host (RFC 1035 section 3.3.9: a preference has 16 bits).
_BEHIND_ALL = 65_536
# Whoever does not want mail, or sends it back, does not get it on a detour either; and a relay would bring back what we
# as an MX host have for a better one.
_FINAL = ("4.4.4", "5.1.10", "5.4.6")


@implementer(IRouter)
class Router:
    """
    Where mail goes.

    @ivar fingerprint: differs when the configuration of hops does: mail in the spool is to be routed anew then.
    """

    def __init__(
        self,
        settings: Settings,
        resolver: IResolver,
        policies: Policies,
        seconds: Callable[[], float],
        source: random.Random,
        *,
        listens: Iterable[Endpoint] = (),
        local: Callable[[str], bool] = is_local,
    ) -> None:
        """
        @param seconds: the UNIX time.
        @param source: of the order among servers of equal preference.
        @param listens: see L{listen_on}.
        @param local: whether an address is one of this host's.
        """
        self._ourselves = Ourselves(settings.myhostname, listens, local)
        self._seconds = seconds
        self._random = source
        self._resolver = resolver
        self._take(settings, policies)

    def _take(self, settings: Settings, policies: Policies) -> None:
        self._transport = Transport(settings)
        self._candidates = Candidates(settings, self._resolver, self._ourselves, self._random, self._seconds)
        self._policies = policies
        self._fallback = settings.smtp_fallback_relay
        self._relayhost = settings.relayhost
        self._routes: Memory[Nexthop, Route] = Memory(self._seconds, _MOST_ROUTES)
        self.fingerprint = self._transport.fingerprint

    def adopt(self, settings: Settings, policies: Policies, resolver: IResolver | None = None) -> None:
        """
        Route by these from now on. No route that was made, or is being made, by others is given out any more: who waits
        for one gets one that is made by these.

        @param resolver: L{None} for the one there is, with what it remembers.
        """
        before = self._routes
        self._resolver = resolver or self._resolver
        self._ourselves.adopt(settings.myhostname)
        self._take(settings, policies)
        before.close()

    def hop(self, recipient: str) -> str:
        """See L{IRouter.hop}."""
        return self._transport.hop(recipient)

    async def route(self, nexthop: Nexthop) -> Route:
        """
        See L{IRouter.route}.

        @raise PolicyError: when what a connection must prove cannot be told.
        """
        while True:
            routes = self._routes
            try:
                route = await routes.recall(nexthop, partial(self._resolved, nexthop))
            except Exception:
                if routes is self._routes:
                    raise
                # It says nothing of what is in force now.
                continue
            if routes is self._routes:
                return route

    def listen_on(self, listens: Iterable[Endpoint]) -> None:
        """
        Mail for there would come back, from now on.

        @param listens: where this service takes mail; C{0.0.0.0} and C{::} stand for all addresses of this host.
        """
        self._ourselves.listen_on(listens)
        self.forget()

    def forget(self) -> None:
        """Resolve everything anew from now on."""
        self._routes.forget()

    def close(self) -> None:
        """Give up what is being resolved."""
        self._routes.close()

    async def _resolved(self, nexthop: Nexthop) -> tuple[Route, float]:
        policy = self._policies.policy(nexthop)
        founds: list[Found] = []
        problem: DeliveryProblem | None = None
        site = site_of(nexthop, ())
        fallback = self._fallback
        try:
            found = await self._candidates.find(nexthop, policy)
        except RouteError as error:
            problem = self._configured(error) if nexthop == self._relayhost else error
            if error.status in _FINAL or not fallback:
                raise problem from error
        else:
            site = site_of(nexthop, found.records)
            if nexthop == self._relayhost:
                found = evolve(found, candidates=tuple(evolve(one, configured=True) for one in found.candidates))
            founds.append(found)
            if found.backup:
                fallback = ()
        for number, relay in enumerate(fallback):
            try:
                founds.append(await self._behind(relay, number))
            except (RouteError, PolicyError) as error:
                problem = self._configured(error)
        if not founds:
            assert problem is not None
            raise problem
        now = self._seconds()
        good_until = min([now + MOST, *(found.good_until for found in founds)])
        if problem is not None or any(found.partial for found in founds):
            good_until = min(good_until, now + PARTIAL)
        good_until = max(good_until, now + LEAST)
        candidates = _first(candidate for found in founds for candidate in found.candidates)
        return Route(nexthop=nexthop, site=site, candidates=candidates, good_until=good_until), good_until

    async def _behind(self, relay: Nexthop, number: int) -> Found:
        found = await self._candidates.find(relay, self._policies.policy(relay))
        behind = _BEHIND_ALL * (number + 1)
        moved = [evolve(one, preference=behind + one.preference, configured=True) for one in found.candidates]
        return evolve(found, candidates=tuple(moved))

    @staticmethod
    def _configured(error: DeliveryProblem) -> DeliveryProblem:
        """A name that stands in our own configuration is our mistake: mail waits until it is mended."""
        if error.status.startswith("5"):
            return RouteError("4.3.5", f"mail server configuration problem: {error.text}")
        return error


def _first(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Each endpoint once, where it comes first."""
    first: dict[Endpoint, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.endpoint, candidate)
    return tuple(first.values())
