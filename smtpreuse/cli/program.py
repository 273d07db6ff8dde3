"""
How a subcommand that needs the reactor is run: until its work ends, or a signal ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFromThreads,
    IReactorProcess,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.task import react


class IProgramReactor(IReactorCore, IReactorFromThreads, IReactorProcess, IReactorTCP, IReactorTime, IReactorUNIX):
    """What subcommands need of the reactor."""


Work = Callable[[IProgramReactor], Coroutine[Deferred[object], object, int]]


def run(work: Work) -> int:
    """
    @param work: is given the reactor, and returns the exit status.
    @return: the exit status; 0 when a signal ended the work, which is how a server ends.
    """
    statuses: list[int] = []

    async def main(reactor: IProgramReactor) -> None:
        # Before the reactor runs it does not catch the signals that are to end it in an orderly way.
        running: Deferred[None] = Deferred()
        reactor.callWhenRunning(running.callback, None)
        await running
        statuses.append(await work(reactor))

    try:
        react(main)
    except SystemExit as end:
        return statuses[0] if statuses else int(end.code or 0)
