"""
What is remembered of endpoints that failed: they are tried last for a while, then by one probe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import implementer

from smtpreuse.interfaces import IHostMemory
from smtpreuse.model.nexthop import Endpoint

# So many endpoints are remembered, some 200 octets each; of more, those that failed longest ago are forgotten.
MOST = 20_000


@implementer(IHostMemory)
class HostMemory:
    """In this process."""

    def __init__(self, now: Callable[[], float], pause: float) -> None:
        """
        @param pause: seconds for which an endpoint that failed goes last.
        """
        self._now = now
        self._pause = pause
        self._failed: dict[Endpoint, float] = {}

    def adopt(self, pause: float) -> None:
        """Let endpoints that fail from now on go last for so many seconds."""
        self._pause = pause

    def order(self, endpoints: Sequence[Endpoint]) -> list[int]:
        if not self._failed:
            return list(range(len(endpoints)))
        now = self._now()
        first: list[int] = []
        last: list[int] = []
        for index, endpoint in enumerate(endpoints):
            until = self._failed.get(endpoint)
            if until is None:
                first.append(index)
            elif until <= now:
                # Whoever asks first is the probe; for all others the endpoint goes on being a failed one.
                self._failed[endpoint] = now + self._pause
                first.append(index)
            else:
                last.append(index)
        return first + last

    def failed(self, endpoint: Endpoint) -> None:
        self._failed.pop(endpoint, None)
        self._failed[endpoint] = self._now() + self._pause
        if len(self._failed) > MOST:
            del self._failed[next(iter(self._failed))]

    def answered(self, endpoint: Endpoint) -> None:
        self._failed.pop(endpoint, None)
