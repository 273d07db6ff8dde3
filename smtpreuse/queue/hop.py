"""
One hop in the dispatcher: the recipients of one C{transport:nexthop}, as many of them in memory as can soon be used.
"""

from __future__ import annotations

from attrs import define, field

from smtpreuse.model.route import Route
from smtpreuse.queue.line import Job, Likeness

# At least so many recipients of a hop are held in memory beyond those in flight; the site's window makes it more.
LEAST_ROOM = 10


@define(eq=False)
class Hop:
    """
    @ivar text: as it stands in the spool.
    @ivar waiting: recipients in memory that no lane has taken yet.
    @ivar rows: recipients in memory, in flight or not yet recorded: not to be loaded again.
    @ivar backlog: whether the spool has due recipients that are not in memory.
    @ivar meanwhile: recipients that came into memory while some were being loaded: the spool may show them too.
    @ivar hungry: whether the loader has it in its line.
    @ivar loading: whether the spool is being asked for its recipients.
    @ivar resolving: whether its route is being looked up.
    @ivar unrouted: jobs that wait for the route.
    @ivar route: the last one.
    @ivar likeness: of the route's candidates, made once.
    """

    text: str
    waiting: int = 0
    rows: set[int] = field(factory=set)
    meanwhile: set[int] = field(factory=set)
    backlog: bool = False
    hungry: bool = False
    loading: bool = False
    resolving: bool = False
    unrouted: list[Job] = field(factory=list)
    route: Route | None = None
    likeness: Likeness = frozenset()

    @property
    def transport(self) -> str:
        """C{smtp}, C{discard}, C{error} or C{hold}."""
        return self.text.partition(":")[0]

    @property
    def nexthop(self) -> str:
        """What stands behind the transport."""
        return self.text.partition(":")[2]

    @property
    def idle(self) -> bool:
        """Whether nothing of it is in memory, and nothing waits to be."""
        return not (self.rows or self.backlog or self.hungry or self.loading or self.resolving)

    def room(self, window: int) -> int:
        """
        How many recipients more may be loaded.

        @param window: of its site.
        """
        return max(LEAST_ROOM, 2 * window) - self.waiting
