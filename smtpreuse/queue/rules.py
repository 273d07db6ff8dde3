"""
All that main.cf says of the queue, in one value: what the dispatcher is given at its start, and anew at a reload.
"""

from __future__ import annotations

from attrs import frozen

from smtpreuse.queue.schedule import RetryRules
from smtpreuse.queue.settling import SettlingRules
from smtpreuse.queue.sitequeue import SiteRules
from smtpreuse.queue.traffic import TrafficRules


@frozen(kw_only=True)
class DispatchRules:
    """
    Durations in seconds.

    @ivar active_limit: messages in memory.
    @ivar recipient_limit: recipients of one request.
    @ivar lane_limit: lanes at work in all, above the sites' own limits; sessions at rest count too and make way.
    @ivar request_sessions: sessions that one request may have in one attempt, 0 for no limit.
    """

    site: SiteRules
    retry: RetryRules
    active_limit: int
    recipient_limit: int
    lane_limit: int
    request_sessions: int

    @property
    def traffic(self) -> TrafficRules:
        """What lanes are opened by."""
        return TrafficRules(site=self.site, lanes=self.lane_limit, pause=self.retry.minimal_backoff)

    @property
    def settling(self) -> SettlingRules:
        """What reports are brought to their end by."""
        return SettlingRules(retry=self.retry, sessions=self.request_sessions)

    @property
    def search_every(self) -> float:
        """How often the spool is searched for what has become due."""
        return max(0.2, min(self.retry.minimal_backoff / 10, 30.0))
