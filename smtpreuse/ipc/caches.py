"""
The connection cache in a process of its own: C{IConnectionCache} as its users see it, and what answers them there.

A find is answered by a verb of its own, for a descriptor in an answer that nobody waits for any more would be lost.
Mail never waits for the cache: where it does not answer there are fresh connections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from smtpreuse.errors import LinkError, SessionLost
from smtpreuse.interfaces import IConnectionCache, IStreamEnd
from smtpreuse.ipc.bridged import Proxies, adopt
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import LIMIT, Link
from smtpreuse.ipc.stream import Adopter
from smtpreuse.ipc.verbs import DROP, FIND, HERE, NOT_HERE, SAVE, Drop, Find, Here, Saved
from smtpreuse.model.reuse import Needs, ReuseKey, SessionFacts
from smtpreuse.model.route import Site

_Answer = tuple[Here, Descriptor] | None


@implementer(IConnectionCache)
class RemoteCache:
    """
    The cache as others see it. Without a link nothing is found, and what is to be saved is told QUIT.
    """

    log = Logger()

    def __init__(self, reactor: Adopter, clock: IReactorTime, proxies: Proxies) -> None:
        self._reactor = reactor
        self._clock = clock
        self._proxies = proxies
        self._link: Link | None = None
        self._tickets = count(1)
        self._asked: dict[int, Deferred[_Answer]] = {}
        # It owes answers for longer than anybody waits: nothing is asked until it gives one.
        self._stuck = False

    def __repr__(self) -> str:
        return f"<RemoteCache over {self._link!r}, {len(self._asked)} asked>"

    def met(self, link: Link) -> None:
        """The cache is there, at the other end of this link."""
        self._link = link
        self._stuck = False
        link.serve(HERE, self._here)
        link.serve(NOT_HERE, self._not_here)
        link.when_lost(lambda: self._lost(link))

    # IConnectionCache

    async def save(self, destination: str, site: Site, key: ReuseKey, facts: SessionFacts, end: IStreamEnd) -> None:
        """See L{IConnectionCache.save}."""
        if self._link is None or self._stuck:
            end.write(b"QUIT\r\n")
            end.close()
            return
        try:
            descriptor = end.detach()
        except SessionLost as lost:
            self.log.info(
                "session not saved: endpoint={endpoint} reason={reason}", endpoint=key.endpoint, reason=str(lost)
            )
            end.abort()
            return
        saved = Saved(destination=destination, site=site, key=key, facts=evolve(facts, via=end.via))
        try:
            await self._link.ask(SAVE, saved, descriptor)
        except LinkError as error:
            self.log.warn(
                "session not saved: endpoint={endpoint} reason={reason}", endpoint=key.endpoint, reason=str(error)
            )

    async def find_destination(
        self, destination: str, needs: Sequence[Needs]
    ) -> tuple[ReuseKey, SessionFacts, IStreamEnd] | None:
        """See L{IConnectionCache.find_destination}."""
        return await self._find(destination, tuple(needs)) if destination else None

    async def find_endpoint(self, needs: Needs) -> tuple[ReuseKey, SessionFacts, IStreamEnd] | None:
        """See L{IConnectionCache.find_endpoint}."""
        return await self._find("", (needs,))

    async def drop(self, site: Site | None, keep: int) -> None:
        """See L{IConnectionCache.drop}."""
        if self._link is not None and not self._stuck:
            self._link.tell(DROP, Drop(site=site, keep=keep))

    # inside

    async def _find(
        self, destination: str, needs: tuple[Needs, ...]
    ) -> tuple[ReuseKey, SessionFacts, IStreamEnd] | None:
        link = self._link
        if link is None or self._stuck:
            return None
        ticket = next(self._tickets)
        answer: Deferred[_Answer] = Deferred()
        self._asked[ticket] = answer
        link.tell(FIND, Find(ticket=ticket, destination=destination, needs=needs))
        try:
            found = await answer.addTimeout(LIMIT, self._clock)
        except (TimeoutError, CancelledError):
            self._stuck = link is self._link
            self.log.warn("{name} does not answer: new connections are made", name=link.name)
            return None
        finally:
            self._asked.pop(ticket, None)
        if found is None:
            return None
        here, descriptor = found
        try:
            return here.key, here.facts, adopt(self._reactor, descriptor, here.facts.via, self._proxies)
        except (SessionLost, OSError) as error:
            self.log.info(
                "session found and lost: endpoint={endpoint} reason={reason}",
                endpoint=here.key.endpoint, reason=str(error),
            )  # fmt: skip
            return None

    def _here(self, here: Here, descriptor: Descriptor) -> None:
        self._stuck = False
        answer = self._asked.pop(here.ticket, None)
        if answer is None:
            descriptor.close()
            raise LinkError(f"nobody waits for an answer to {here.ticket}")
        answer.callback((here, descriptor))

    def _not_here(self, ticket: int) -> None:
        self._stuck = False
        answer = self._asked.pop(ticket, None)
        if answer is not None:
            answer.callback(None)

    def _lost(self, link: Link) -> None:
        if self._link is link:
            self._link = None
            asked, self._asked = self._asked, {}
            for answer in asked.values():
                answer.callback(None)


class CacheDesk:
    """
    Answers the users of a cache in this process.
    """

    log = Logger()

    def __init__(
        self, cache: IConnectionCache, reactor: Adopter, proxies: Proxies, like: Callable[[Saved], Saved]
    ) -> None:
        """
        @param like: the same value, made of parts that are here already where there are equal ones.
        """
        self._cache = cache
        self._reactor = reactor
        self._proxies = proxies
        self._like = like

    def serve(self, link: Link) -> None:
        """Answer whoever is at the other end."""

        def find(find: Find) -> None:
            Deferred.fromCoroutine(self._find(link, find)).addErrback(
                lambda failure: self.log.failure("find failed: from {name}", failure=failure, name=link.name)
            )

        link.serve(SAVE, self._save)
        link.serve(FIND, find)
        link.serve(DROP, self._drop)

    async def _save(self, saved: Saved, descriptor: Descriptor) -> None:
        try:
            end = adopt(self._reactor, descriptor, saved.facts.via, self._proxies)
        except (SessionLost, OSError) as error:
            self.log.info(
                "session not saved: endpoint={endpoint} reason={reason}",
                endpoint=saved.key.endpoint, reason=str(error),
            )  # fmt: skip
            return
        saved = self._like(saved)
        await self._cache.save(saved.destination, saved.site, saved.key, saved.facts, end)

    async def _find(self, link: Link, find: Find) -> None:
        if find.destination:
            found = await self._cache.find_destination(find.destination, find.needs)
        else:
            found = await self._cache.find_endpoint(find.needs[0]) if find.needs else None
        if found is None:
            link.tell(NOT_HERE, find.ticket)
            return
        key, facts, end = found
        try:
            descriptor = end.detach()
        except SessionLost:
            link.tell(NOT_HERE, find.ticket)
            end.abort()
            return
        try:
            await link.ask(HERE, Here(ticket=find.ticket, key=key, facts=facts), descriptor)
        except LinkError as error:
            self.log.info(
                "session found and lost: endpoint={endpoint} reason={reason}", endpoint=key.endpoint, reason=str(error)
            )

    async def _drop(self, drop: Drop) -> None:
        await self._cache.drop(drop.site, drop.keep)
