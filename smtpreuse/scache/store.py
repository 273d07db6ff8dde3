"""
The books of the connection cache: which sessions rest, and which of them a request may have.

It decides at once and returns what is to be closed; who holds the streams does it. It knows no clock, no stream and no
network.

Two indexes lead to a session, as in Postfix's scache(8): its key, and the destination it served. Of the endpoints of a
destination the one that was used least recently is taken, so that a slow host, whose sessions are always the ones
still open, does not draw all the mail (proto/CONNECTION_CACHE_README). Of the sessions of one key the last one saved
is taken, so that those that are not needed come to their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import evolve, frozen

from smtpreuse.model.reuse import Needs, ReuseKey, SessionFacts
from smtpreuse.model.route import Site
from smtpreuse.scache.idle import IdleTimes
from smtpreuse.scache.rules import CacheRules
from smtpreuse.tls.carry import may_carry, worn_out


@frozen(kw_only=True)
class Resting:
    """
    One session at rest.

    @ivar number: names it; unique, and the higher the later it was saved.
    @ivar since: UNIX time at which it was saved.
    @ivar until: UNIX time at which it ends if nobody wants it.
    """

    number: int
    destination: str
    site: Site
    key: ReuseKey
    facts: SessionFacts
    since: float
    until: float


@frozen
class Found:
    """
    @ivar session: what was taken out, or L{None}.
    @ivar over: sessions that were met on the way and carry nothing any more; to be closed.
    """

    session: Resting | None
    over: tuple[Resting, ...] = ()


class Store:
    """
    The books.
    """

    def __init__(self, rules: CacheRules) -> None:
        self._rules = rules
        self._idle_times = IdleTimes()
        self._saved = 0
        # All of them; within each the order is that of saving.
        self._resting: dict[int, Resting] = {}
        self._by_key: dict[ReuseKey, dict[int, Resting]] = {}
        self._by_site: dict[Site, dict[int, Resting]] = {}
        # Destination -> key -> until when it leads there; the key used least recently stands first.
        self._destinations: dict[str, dict[ReuseKey, float]] = {}
        # Those that lead nowhere any more are looked for at this UNIX time: seldom, for there may be many.
        self._sweep = 0.0

    def __len__(self) -> int:
        return len(self._resting)

    def __iter__(self) -> Iterator[Resting]:
        return iter(self._resting.values())

    def __repr__(self) -> str:
        return (
            f"<Store {len(self._resting)} resting, {len(self._by_key)} keys, {len(self._by_site)} sites, "
            f"{len(self._destinations)} destinations>"
        )

    def count(self, site: Site | None) -> int:
        """How many sessions of this site (of all sites) rest."""
        return len(self._resting) if site is None else len(self._by_site.get(site, ()))

    def save(
        self, destination: str, site: Site, key: ReuseKey, facts: SessionFacts, now: float
    ) -> tuple[Resting, tuple[Resting, ...]]:
        """
        Enter a session.

        @return: its entry, and all that is to be closed for it: itself when it carries nothing any more, and the least
            useful ones where a limit was passed.
        """
        self._saved += 1
        if not self._destinations:
            self._sweep = now + self._rules.idle_limit
        learned = self._idle_times.limit(site, now)
        idle_limit = self._rules.idle_limit if learned is None else min(learned, self._rules.idle_limit)
        session = Resting(
            number=self._saved,
            destination=destination,
            site=site,
            key=key,
            facts=facts,
            since=now,
            until=min(now + idle_limit, facts.good_until),
        )
        if session.until <= now or worn_out(facts, now, most_uses=self._rules.most_uses):
            return session, (session,)
        self._enter(session)
        if destination:
            # An entry keeps its place: it moves by being used, not by how long its sessions are out.
            self._destinations.setdefault(destination, {})[key] = now + self._rules.idle_limit
        over = self._shrink(self._by_key[key], self._rules.limit_per_key)
        return session, over + self._shrink(self._resting, self._rules.limit)

    def find_destination(self, destination: str, needs: Sequence[Needs], now: float) -> Found:
        """
        Take out a session that served this destination and may carry one of these needs.

        @param needs: one for each candidate in question.
        """
        leads = self._destinations.get(destination)
        if leads is None:
            return Found(None)
        wanted = {need.key: need for need in needs}
        over: tuple[Resting, ...] = ()
        for key in list(leads):
            if leads[key] <= now:
                self._forget(destination, key)
            elif key in wanted:
                found = self.find_endpoint(wanted[key], now)
                over += found.over
                if found.session is not None:
                    leads[key] = leads.pop(key)
                    return Found(found.session, over)
        return Found(None, over)

    def find_endpoint(self, needs: Needs, now: float) -> Found:
        """Take out a session of exactly this key that may carry these needs."""
        over: list[Resting] = []
        taken: Resting | None = None
        for session in reversed(self._by_key.get(needs.key, {}).values()):
            if session.until <= now:
                over.append(session)
                continue
            answer = may_carry(session.key, session.facts, needs, now, most_uses=self._rules.most_uses)
            if answer:
                taken = session
                break
        for session in over if taken is None else (*over, taken):
            self.remove(session)
        return Found(taken, tuple(over))

    def expire(self, now: float) -> tuple[Resting, ...]:
        """Take out all whose time has come; to be closed."""
        over = tuple(session for session in self._resting.values() if session.until <= now)
        for session in over:
            self.remove(session)
        if now >= self._sweep:
            self._sweep = now + self._rules.idle_limit
            for destination, leads in list(self._destinations.items()):
                for key in [key for key, until in leads.items() if until <= now]:
                    self._forget(destination, key)
        return over

    def next_expiry(self) -> float | None:
        """UNIX time at which L{expire} has something to do; L{None} while the books are empty."""
        times = [session.until for session in self._resting.values()]
        if self._destinations:
            times.append(self._sweep)
        return min(times, default=None)

    def drop(self, site: Site | None, keep: int) -> tuple[Resting, ...]:
        """Take out the least useful sessions of a site (of all sites) until at most C{keep} rest; to be closed."""
        return self._shrink(self._resting if site is None else self._by_site.get(site, {}), keep)

    def adopt(self, rules: CacheRules, now: float) -> tuple[Resting, ...]:
        """
        Keep the books by these rules from now on. What rests already may rest for less time by them, never for more.

        @return: all that they leave no place for, taken out; to be closed.
        """
        self._rules = rules
        for session in self._resting.values():
            until = min(session.until, session.since + rules.idle_limit)
            if until < session.until:
                self._enter(evolve(session, until=until))
        over = self.expire(now) + self.take(
            session.number for session in self._resting.values()
            if worn_out(session.facts, now, most_uses=rules.most_uses)
        )  # fmt: skip
        for of_key in list(self._by_key.values()):
            over += self._shrink(of_key, rules.limit_per_key)
        return over + self._shrink(self._resting, rules.limit)

    def take(self, numbers: Iterable[int]) -> tuple[Resting, ...]:
        """Take out the sessions of these numbers, as far as they rest; to be closed."""
        found = tuple(self._resting[number] for number in list(numbers) if number in self._resting)
        for session in found:
            self.remove(session)
        return found

    def ended(self, session: Resting, now: float) -> None:
        """Take out this one, which its server ended or spoiled: where that repeats, others rest for a shorter time."""
        self.remove(session)
        self._idle_times.ended(session.site, session.since, now)

    def remove(self, session: Resting) -> bool:
        """
        Take out this one.

        @return: whether it was there.
        """
        if self._resting.pop(session.number, None) is None:
            return False
        of_key, of_site = self._by_key[session.key], self._by_site[session.site]
        del of_key[session.number], of_site[session.number]
        if not of_key:
            del self._by_key[session.key]
        if not of_site:
            del self._by_site[session.site]
        return True

    def _enter(self, session: Resting) -> None:
        """A new session, or a new entry for one."""
        self._resting[session.number] = session
        self._by_key.setdefault(session.key, {})[session.number] = session
        self._by_site.setdefault(session.site, {})[session.number] = session

    def _shrink(self, sessions: dict[int, Resting], keep: int) -> tuple[Resting, ...]:
        """The least useful session is the one whose end is the closest; of several, the one that was saved first."""
        surplus = len(sessions) - keep
        if surplus <= 0:
            return ()
        over = tuple(sorted(sessions.values(), key=lambda session: session.until)[:surplus])
        for session in over:
            self.remove(session)
        return over

    def _forget(self, destination: str, key: ReuseKey) -> None:
        leads = self._destinations[destination]
        del leads[key]
        if not leads:
            del self._destinations[destination]
