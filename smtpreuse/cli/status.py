"""
C{smtpreuse status} and C{smtpreuse sessions}: what the running service is doing, over the control socket.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial

from smtpreuse.cli.control import ControlSocket, ServiceRefused, ServiceUnreachable, asked
from smtpreuse.control.objects import Session, Status
from smtpreuse.model.logline import clean

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add both subcommands."""
    status = subparsers.add_parser("status", parents=[common], help="what the running service does and has done")
    status.add_argument("--ready", action="store_true", help="print nothing; status 0 if mail is taken, else 1")
    status.set_defaults(run=show_status)
    sessions = subparsers.add_parser("sessions", parents=[common], help="the connections that are open now")
    sessions.set_defaults(run=show_sessions)


def show_status(arguments: argparse.Namespace) -> int:
    """Run C{smtpreuse status}."""
    return asked(arguments, ready if arguments.ready else partial(print_status, arguments))


def show_sessions(arguments: argparse.Namespace) -> int:
    """Run C{smtpreuse sessions}."""
    return asked(arguments, partial(print_sessions, arguments))


def ready(service: ControlSocket) -> int:
    """Whether the service takes mail: 0 or 1."""
    try:
        return 0 if all(status.state == "running" for status in service.objects("/status", Status)) else 1
    except (ServiceRefused, ServiceUnreachable):
        return 1


def print_status(arguments: argparse.Namespace, service: ControlSocket) -> int:
    """Print the state of the service."""
    if arguments.json:
        for line in service.lines("/status"):
            print(line)
        return 0
    for status in service.objects("/status", Status):
        print("\n".join(described(status)))
    return 0


def print_sessions(arguments: argparse.Namespace, service: ControlSocket) -> int:
    """Print every session."""
    if arguments.json:
        for line in service.lines("/sessions"):
            print(line)
        return 0
    rows = [_session(session) for session in service.objects("/sessions", Session)]
    if rows:
        heading = ("SITE", "HOST", "ENDPOINT", "STATE", "AGE", "IDLE", "USES", "LEVEL", "TLS", "PROCESS")
        print("\n".join(aligned([heading, *rows])))
    else:
        print("No sessions")
    return 0


def described(status: Status) -> Iterator[str]:
    """The lines of C{smtpreuse status}."""
    queue, sessions = status.queue, status.sessions
    yield f"smtpreuse {status.version}, pid {status.pid}, {status.state}"
    yield (
        f"queue:        {queue.incoming} incoming, {queue.active} active, {queue.deferred} deferred, {queue.hold} hold,"
        f" {queue.corrupt} corrupt"
    )
    yield f"sessions:     {sessions.connecting} connecting, {sessions.busy} busy, {sessions.resting} resting"
    yield (
        f"since start:  {status.delivered} delivered, {status.deferred} deferred, {status.bounced} bounced;"
        f" {status.reused} transactions on reused connections"
    )
    yield ""
    roles = [
        (role.name, str(role.pid), _span(role.age), str(role.sessions), _size(role.rss), f"{role.cpu:.1f}s")
        for role in status.roles
    ]
    yield from aligned([("ROLE", "PID", "AGE", "SESSIONS", "RSS", "CPU"), *roles])


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """
    Rows with their columns under each other, two spaces apart.

    @param rows: all of one length.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _session(session: Session) -> tuple[str, ...]:
    tls = session.tls
    encryption = (tls.protocol, tls.cipher, tls.verdict) if tls else ("-",)
    return (
        clean(session.site), clean(session.host or "-"), session.endpoint or "-", session.state, _span(session.age),
        _span(session.idle), str(session.uses), session.level or "-", " ".join(filter(None, encryption)),
        str(session.process),
    )


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.1f}s"


def _size(octets: int | None) -> str:
    return "-" if octets is None else f"{octets / 1048576:.1f}M"
