"""
The connection cache: holds the streams of the sessions at rest, watches them, and ends them with QUIT.

Whatever arrives on a session at rest ends it, for no reply is due there: a 421, an error, a close. It knows nothing of
how a session is opened and judges nothing itself: the books do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from smtpreuse.interfaces import IConnectionCache, IResting, IStreamEnd, IStreamReceiver
from smtpreuse.model.reuse import Needs, ReuseKey, SessionFacts
from smtpreuse.model.route import Site
from smtpreuse.scache.rules import CacheRules
from smtpreuse.scache.store import Found, Resting, Store

_log = Logger()

# Of what a server says to a session at rest, so much goes into the log.
_TEXT = 512


@implementer(IStreamReceiver)
class _Watch:
    """
    Listens to one session at rest.

    @ivar session: its entry in the books, or L{None} when it is not in them.
    @ivar quitting: whether it was told QUIT, so that a reply is due.
    """

    def __init__(self, cache: ConnectionCache, end: IStreamEnd) -> None:
        self._cache = cache
        self.end = end
        self.session: Resting | None = None
        self.quitting = False
        self.spoiled = False

    def received(self, data: bytes) -> None:
        if self.quitting or self.spoiled:
            return
        self.spoiled = True
        if self.session is not None:
            self._cache.lost(self.session, f"server said {data[:_TEXT].decode('latin-1')!r}")
            self.end.close()
        else:
            # Between two owners: the next one is to find it ended, not to take this for a reply.
            self.end.abort()

    def ended(self, reason: str, ours: bool = False) -> None:
        self.spoiled = True
        if self.session is not None:
            self._cache.lost(self.session, reason, ours=ours)

    def drained(self) -> None:
        """Nothing is written to a session at rest."""


@implementer(IConnectionCache, IResting)
class ConnectionCache:
    """
    The local body of the seam.

    Whoever is given a session attaches to its end before it waits for anything.
    """

    def __init__(
        self, clock: IReactorTime, rules: CacheRules, changed: Callable[[Site], object] = lambda site: None
    ) -> None:
        """
        @param clock: its C{seconds} are UNIX time.
        @param changed: told of a site when the number of its sessions at rest is another.
        """
        self._clock = clock
        self._store = Store(rules)
        self._changed = changed
        self._watches: dict[int, _Watch] = {}
        self._timer: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<ConnectionCache {self._store!r}>"

    # IConnectionCache

    async def save(self, destination: str, site: Site, key: ReuseKey, facts: SessionFacts, end: IStreamEnd) -> None:
        """See L{IConnectionCache.save}."""
        watch = _Watch(self, end)
        end.attach(watch)
        if watch.spoiled:
            _log.info("session not saved: endpoint={endpoint} reason=octets or its end had come", endpoint=key.endpoint)
            return
        session, over = self._store.save(destination, site, key, facts, self._clock.seconds())
        watch.session = session
        self._watches[session.number] = watch
        self._changed(site)
        self._quit(over)
        if self._timer is not None and session.until < self._timer.getTime():
            self._timer.reset(max(0.0, session.until - session.since))
        self._arm()

    async def find_destination(
        self, destination: str, needs: Sequence[Needs]
    ) -> tuple[ReuseKey, SessionFacts, IStreamEnd] | None:
        """See L{IConnectionCache.find_destination}."""
        return self._given(self._store.find_destination(destination, needs, self._clock.seconds()))

    async def find_endpoint(self, needs: Needs) -> tuple[ReuseKey, SessionFacts, IStreamEnd] | None:
        """See L{IConnectionCache.find_endpoint}."""
        return self._given(self._store.find_endpoint(needs, self._clock.seconds()))

    async def drop(self, site: Site | None, keep: int) -> None:
        """See L{IConnectionCache.drop}."""
        self._quit(self._store.drop(site, keep))

    def resting(self, site: Site | None) -> int:
        """See L{IConnectionCache.resting}."""
        return self._store.count(site)

    # for the operator and the assembly

    def sessions(self) -> list[Resting]:
        """Every session at rest, in the order of saving."""
        return list(self._store)

    def adopt(self, rules: CacheRules) -> None:
        """Go by these rules from now on: what they leave no place for is told QUIT."""
        self._quit(self._store.adopt(rules, self._clock.seconds()))
        for session in self._store:
            self._watches[session.number].session = session
        # The first end may be closer than it was.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._arm()

    def dismiss(self, numbers: Iterable[int]) -> int:
        """
        Tell the sessions of these numbers QUIT, as far as they rest.

        @return: how many did.
        """
        over = self._store.take(numbers)
        self._quit(over)
        return len(over)
    def retiring(self, process: int) -> None:
        """A process ends: sessions that lead through it are ended with QUIT."""
        self.dismiss([
            session.number for session in self._store
            if session.facts.via is not None and session.facts.via.process == process
        ])  # fmt: skip

    def close_all(self) -> None:
        """End every session with QUIT; what is saved from now on rests as before."""
        self._quit(self._store.drop(None, 0))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # inside

    def lost(self, session: Resting, reason: str, *, ours: bool = False) -> None:
        """
        A session at rest was spoiled or ended by its server.

        @param ours: whether it was no server's doing.
        """
        if ours:
            self._store.remove(session)
        else:
            self._store.ended(session, self._clock.seconds())
        self._watches.pop(session.number).session = None
        self._changed(session.site)
        _log.info(
            "session at rest lost: endpoint={endpoint} host={host} uses={uses} rested={rested:.3f} reason={reason}",
            endpoint=session.key.endpoint,
            host=session.facts.host,
            uses=session.facts.uses,
            rested=self._clock.seconds() - session.since,
            reason=reason,
        )

    def _given(self, found: Found) -> tuple[ReuseKey, SessionFacts, IStreamEnd] | None:
        self._quit(found.over)
        if found.session is None:
            return None
        watch = self._watches.pop(found.session.number)
        watch.session = None
        self._changed(found.session.site)
        return found.session.key, found.session.facts, watch.end

    def _quit(self, sessions: Sequence[Resting]) -> None:
        for session in sessions:
            watch = self._watches.pop(session.number)
            watch.session = None
            self._changed(session.site)
            watch.quitting = True
            watch.end.write(b"QUIT\r\n")
            watch.end.close()

    def _arm(self) -> None:
        """One timer serves all sessions; it may fire too early, for a session that was taken out since."""
        expiry = self._store.next_expiry() if self._timer is None else None
        if expiry is not None:
            self._timer = self._clock.callLater(max(0.0, expiry - self._clock.seconds()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._quit(self._store.expire(self._clock.seconds()))
        self._arm()
