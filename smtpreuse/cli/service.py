"""
C{smtpreuse reload} and C{smtpreuse drain}: what the operator has the running service do, over the control socket.

Where the service is found is read from the configuration, whatever else is wrong with that: what is, the service says.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

from attrs import field, frozen

from smtpreuse.cli.control import ControlSocket, ServiceRefused, ServiceUnreachable, asked
from smtpreuse.control.objects import Drained, Draining, NotReloaded, Status, parsed, written

# How often it is looked whether the service is gone, in seconds.
_EVERY = 0.1
# How much longer than transactions may go on a service may take to end, in seconds: the last outcomes get to the disk.
_CLOSING = 60.0
# What a connection fails with where nobody listens; whatever else happens, there may be somebody.
_NOBODY = (ConnectionRefusedError, FileNotFoundError)


@frozen(kw_only=True)
class _Answer:
    """What came of a reload."""

    reloaded: bool
    next_start: list[str] = field(factory=list)
    problems: list[str] = field(factory=list)


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add both subcommands."""
    reloader = subparsers.add_parser(
        "reload", parents=[common], help="have the service read its configuration again; status 1 if it is bad"
    )
    reloader.set_defaults(run=partial(command, reload))
    drainer = subparsers.add_parser(
        "drain", parents=[common], help="have the service end what is under way and take nothing more; wait for its end"
    )
    drainer.set_defaults(run=partial(command, drain))


def command(action: Callable[[argparse.Namespace, ControlSocket], int], arguments: argparse.Namespace) -> int:
    """Run one of the two."""
    return asked(arguments, partial(action, arguments), strict=False)


def reload(arguments: argparse.Namespace, service: ControlSocket) -> int:
    """Have the configuration read again; problems make it a failure, and nothing has changed then."""
    try:
        line = service.told("/reload")
    except ServiceRefused as error:
        line = written(NotReloaded(problems=[str(error)]))
    answer = parsed(line, _Answer)
    for problem in answer.problems:
        print(problem, file=sys.stderr)
    if arguments.json:
        print(line)
    elif answer.reloaded:
        print("configuration read again")
        for name in answer.next_start:
            print(f"{name}: takes effect at the next start")
    return 0 if answer.reloaded else 1


def drain(
    arguments: argparse.Namespace, service: ControlSocket, seconds: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> int:  # fmt: skip
    """Have the service end, and wait until it is gone."""
    begun = seconds()
    pid = _pid(service)
    limit = parsed(service.told("/drain"), Draining).limit + _CLOSING
    while _there(service, pid):
        if seconds() - begun > limit:
            print(f"smtpreuse drain: the service is still there after {limit:.0f} s; its log says why", file=sys.stderr)
            return 1
        pause(_EVERY)
    took = round(seconds() - begun, 1)
    print(written(Drained(seconds=took)) if arguments.json else f"drained in {took:.1f} s: the service has ended")
    return 0


def _pid(service: ControlSocket) -> int | None:
    """Whose socket it is; L{None} where the service cannot say so now."""
    try:
        return next((status.pid for status in service.objects("/status", Status)), None)
    except ServiceRefused:
        return None


def _there(service: ControlSocket, pid: int | None) -> bool:
    """Whether that service is still there; another one may have begun in its place."""
    try:
        return _pid(service) in (pid, None)
    except ServiceUnreachable as error:
        return not isinstance(error.__cause__, _NOBODY)
