"""
How a subcommand that needs the reactor is run: until its work ends, or a signal ends it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, ReactorNotRunning
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFromThreads,
    IReactorProcess,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.task import react

# SIGHUP: the terminal was closed.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 1


class IProgramReactor(IReactorCore, IReactorFromThreads, IReactorProcess, IReactorTCP, IReactorTime, IReactorUNIX):
    """What subcommands need of the reactor."""


Work = Callable[[IProgramReactor], Coroutine[Deferred[object], object, int]]


def run(work: Work) -> int:
    """
    Run the reactor for some work.

    @param work: is given the reactor, and returns the exit status. A signal cancels it: what it waits for raises
        C{CancelledError}, and it may still tidy up, and return a status.
    @return: the exit status; 1 when a signal ended the work and it left it at that.
    @raise Exception: what the work raised.
    """
    statuses: list[int] = []
    problems: list[Exception] = []

    async def main(reactor: IProgramReactor) -> None:
        # Before the reactor runs it does not catch the signals that are to end it in an orderly way.
        running: Deferred[None] = Deferred()
        reactor.callWhenRunning(running.callback, None)
        await running
        _end_by_signals(reactor)
        working = Deferred.fromCoroutine(work(reactor))
        over: Deferred[None] = Deferred()

        def cancel() -> Deferred[None]:
            working.cancel()
            return over

        reactor.addSystemEventTrigger("before", "shutdown", cancel)
        try:
            statuses.append(await working)
        except (CancelledError, ConnectingCancelledError):
            statuses.append(_INTERRUPTED)
        except Exception as error:
            problems.append(error)
        over.callback(None)

    with suppress(SystemExit):
        react(main)
    if problems:
        raise problems[0]
    return statuses[0] if statuses else _INTERRUPTED


def _end_by_signals(reactor: IProgramReactor) -> None:
    def stop() -> None:
        with suppress(ReactorNotRunning):  # it was told so before
            reactor.stop()

    for number in _ENDING:
        # nohup(1), and shells that start something in the background, have some ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: reactor.callFromThread(stop))
