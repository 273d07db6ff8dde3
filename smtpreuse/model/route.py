"""
Where a nexthop leads: the site whose limits count, and the candidates in the order of trial.
"""

from __future__ import annotations

from attrs import frozen

from smtpreuse.model.nexthop import Candidate, Endpoint, Nexthop


@frozen(kw_only=True)
class Site:
    """
    The unit of limits: windows, rates, dead hosts and learned facts belong to it.

    @ivar name: the provider's, the sorted MX hosts, or the relay host; what the operator's tools show.
    """

    name: str


@frozen(kw_only=True)
class Route:
    """
    @ivar nexthop: what was resolved; also the logical destination under which its sessions are found.
    @ivar candidates: in the order of trial; at least one.
    @ivar good_until: UNIX time after which it is to be asked for anew.
    """

    nexthop: Nexthop
    site: Site
    candidates: tuple[Candidate, ...]
    good_until: float

    def candidate(self, endpoint: Endpoint) -> Candidate | None:
        """The candidate at this endpoint, or L{None} where it is none of this route."""
        for candidate in self.candidates:
            if candidate.endpoint == endpoint:
                return candidate
        return None
