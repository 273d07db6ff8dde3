"""
How long each site lets a session rest, learned from the sessions that it ended.

A server has an idle limit that it tells nobody (RFC 5321 section 4.5.3.2.7 asks for five minutes; there are some with
ten seconds). A session that is still at rest then is lost for nothing, with a 421 in the server's log. Pure books: no
clock, no stream.
"""

from __future__ import annotations

from attrs import frozen

from smtpreuse.model.route import Site

# Rests are of equal length when they differ by no more than this, in seconds: servers' timers tick by the second.
_EQUAL = 1.0
# What ends sooner, in seconds, is no idle limit: the server wants few messages on a session, or goes down.
_LEAST = 2.0
# Of a limit so much is used: ours is to be the first word.
_SHARE = 0.9
# What was learned is believed for a day, in seconds; the server may have another configuration by then.
_BELIEVED = 86400.0
# Sites; of more, the one that was heard of longest ago is forgotten.
_MOST = 10_000


@frozen(kw_only=True)
class _Seen:
    rest: float
    at: float
    limit: float | None = None


class IdleTimes:
    """What was learned of each site."""

    def __init__(self) -> None:
        self._seen: dict[Site, _Seen] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def ended(self, site: Site, since: float, now: float) -> None:
        """
        The server ended a session at rest. Twice in a row after the same rest is a limit, once is chance; and those
        that end together, as when a server is started anew, are one.

        @param since: UNIX time at which the rest began.
        """
        rest, limit = now - since, None
        before = self._seen.get(site)
        if rest < _LEAST or (before is not None and since < before.at):
            return
        if before is not None and abs(rest - before.rest) <= _EQUAL:
            limit = _SHARE * min(rest, before.rest)
        self._seen.pop(site, None)
        self._seen[site] = _Seen(rest=rest, at=now, limit=limit)
        if len(self._seen) > _MOST:
            del self._seen[next(iter(self._seen))]

    def limit(self, site: Site, now: float) -> float | None:
        """For how many seconds a session of this site may rest; L{None} when nothing is known."""
        seen = self._seen.get(site)
        return seen.limit if seen is not None and now - seen.at < _BELIEVED else None
