"""
What waits for one site, in the order in which it is given out.

Requests whose sessions are alike wait in one line, so that asking which a session may carry costs one verdict for each
line and not one for each request. Pure books: the verdicts are the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from attrs import define, field

from smtpreuse.model.message import Message
from smtpreuse.model.nexthop import Candidate, Endpoint
from smtpreuse.model.route import Route
from smtpreuse.queue.schedule import FRESH_TO_RETRIES

Likeness = frozenset[Candidate]


@define(eq=False)
class Job:
    """
    A message on its way through the dispatcher, with those of its recipients that go to one hop.

    @ivar hop: the text under which its recipients stand in the spool.
    @ivar retry: whether it was tried before.
    @ivar since: UNIX time since when it is due.
    @ivar route: set when its hop is resolved.
    @ivar tried: endpoints that it is not to be given to again in this attempt.
    @ivar sessions: how many sessions it has had in this attempt.
    @ivar fresh: whether only a new session will do, because a reused one failed it.
    @ivar stranded: whether a lane ended by a fault of ours and left it without a report.
    @ivar outdated: whether its route was made under a configuration that is not in force any more.
    """

    message: Message
    hop: str
    retry: bool
    since: float
    route: Route | None = None
    tried: frozenset[Endpoint] = frozenset()
    sessions: int = 0
    fresh: bool = False
    stranded: bool = False
    outdated: bool = False

    @property
    def size(self) -> int:
        """Octets of its content."""
        return self.message.size


@define
class _Line:
    fresh: deque[Job] = field(factory=deque)
    retries: deque[Job] = field(factory=deque)

    def head(self, *, retry: bool) -> Job | None:
        line = self.retries if retry else self.fresh
        return line[0] if line else None

    def __len__(self) -> int:
        return len(self.fresh) + len(self.retries)


@define
class Lines:
    """All that is due at one site."""

    _lines: dict[Likeness, _Line] = field(factory=dict)
    _special: list[Job] = field(factory=list)
    _size: int = 0
    _given: int = 0

    def __len__(self) -> int:
        return self._size

    def put(self, job: Job, likeness: Likeness) -> None:
        """Last in its line; but one that was out before, and may not go everywhere, first of all."""
        self._size += 1
        if job.tried or job.fresh:
            self._special.append(job)
            return
        line = self._lines.get(likeness)
        if line is None:
            line = self._lines[likeness] = _Line()
        (line.retries if job.retry else line.fresh).append(job)

    def take(self, fits: Callable[[Job], bool] | None) -> Job | None:
        """
        The oldest that fits; fresh mail goes three times before a retry does where both wait.

        @param fits: asked for the first of each line, and for each that was out before; L{None} takes any.
        """
        for index, job in enumerate(self._special):
            if fits is None or fits(job):
                self._size -= 1
                return self._special.pop(index)
        retry_next = self._given % (FRESH_TO_RETRIES + 1) == FRESH_TO_RETRIES
        for retry in (retry_next, not retry_next):
            found = self._oldest(fits, retry=retry)
            if found is not None:
                self._given += 1
                return found
        return None

    def _oldest(self, fits: Callable[[Job], bool] | None, *, retry: bool) -> Job | None:
        best: tuple[Job, Likeness, _Line] | None = None
        for likeness, line in self._lines.items():
            job = line.head(retry=retry)
            if job is not None and (best is None or job.since < best[0].since) and (fits is None or fits(job)):
                best = (job, likeness, line)
        if best is None:
            return None
        job, likeness, line = best
        (line.retries if retry else line.fresh).popleft()
        self._size -= 1
        if not line:
            del self._lines[likeness]
        return job

    def oldest(self) -> Job | None:
        """What has been due for longest, or L{None} when nothing waits."""
        return min(self._heads(), key=lambda job: job.since, default=None)

    def _heads(self) -> Iterator[Job]:
        yield from self._special
        for line in self._lines.values():
            for job in (line.head(retry=False), line.head(retry=True)):
                if job is not None:
                    yield job

    def remove(self, which: Callable[[Job], bool]) -> list[Job]:
        """Take out all of which this is true."""
        gone = [job for job in self._special if which(job)]
        self._special = [job for job in self._special if not which(job)]
        for likeness, line in list(self._lines.items()):
            for jobs in (line.fresh, line.retries):
                gone += [job for job in jobs if which(job)]
                kept = [job for job in jobs if not which(job)]
                jobs.clear()
                jobs.extend(kept)
            if not line:
                del self._lines[likeness]
        self._size -= len(gone)
        return gone
