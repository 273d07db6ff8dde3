"""
C{smtpreuse sink}: a destination that counts mail and forgets it, until a signal ends it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import FrameType

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.ssl import CertificateOptions

from smtpreuse.cli.certificate import from_files, made_now
from smtpreuse.cli.destination import Destination
from smtpreuse.cli.habits import Demand, Habits
from smtpreuse.cli.options import check_given, natural, seconds
from smtpreuse.cli.program import IProgramReactor, run


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("sink", parents=[common], help="take mail, count it and forget it")
    parser.add_argument(
        "--listen",
        default="tcp:0:interface=127.0.0.1",
        metavar="ENDPOINT",
        help="as Twisted writes it; default %(default)s, any free port",
    )
    parser.add_argument("--tls", choices=[demand.value for demand in Demand], default="on", help="default %(default)s")
    parser.add_argument("--cert", default="", metavar="FILE", help="chain in PEM; without it one is made for this run")
    parser.add_argument("--key", default="", metavar="FILE", help="in PEM; without it the key is in the file of --cert")
    parser.add_argument(
        "--delay",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="hold each group of replies back, as a long way would",
    )
    parser.add_argument(
        "--max-connections", type=natural, default=0, metavar="N", help="at a time; 421 to those beyond"
    )
    parser.add_argument("--messages-per-connection", type=natural, default=0, metavar="N", help="421 to the next MAIL")
    parser.add_argument("--capture", default="", metavar="DIR", help="keep each message: N.eml, its envelope in N.json")
    parser.set_defaults(run=command)


def command(arguments: argparse.Namespace) -> int:
    """Run it."""
    check_given(arguments)
    return run(partial(serve, arguments))


async def serve(arguments: argparse.Namespace, reactor: IProgramReactor) -> int:
    """Listen until the reactor is stopped; the counts are printed then, and at every SIGUSR1."""
    habits = Habits(
        demand=Demand(arguments.tls),
        delay=arguments.delay,
        max_connections=arguments.max_connections,
        messages_per_connection=arguments.messages_per_connection,
        capture=arguments.capture,
    )
    try:
        if habits.capture:
            os.makedirs(habits.capture, exist_ok=True)
        destination = Destination(reactor, habits, certificate_for(habits, arguments.cert, arguments.key))
        endpoint = serverFromString(reactor, arguments.listen)
        port = await endpoint.listen(destination)
    except (CannotListenError, OSError, OverflowError, ValueError) as error:
        print(f"sink: {error}", file=sys.stderr)
        return 1

    def report() -> None:
        try:
            _print(destination.tally.counts())
        except OSError as error:
            print(f"sink: standard output does not take the counts: {error}", file=sys.stderr)

    def report_soon(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(report)

    signal.signal(signal.SIGUSR1, report_soon)
    # Whoever reads this may send a signal at once.
    _print({"listening": address_text(port.getHost())})
    with suppress(CancelledError):  # by a signal, which is how a server ends
        await Deferred()
    report()
    return 0


def certificate_for(habits: Habits, certificate: str, key: str) -> CertificateOptions | None:
    """
    What the destination is to show at STARTTLS, L{None} where it does not offer it.

    @raise OSError: when a file cannot be read.
    @raise ValueError: when there is no certificate with its key in them.
    """
    if habits.demand is Demand.OFF:
        return None
    return from_files(certificate, key) if certificate else made_now()


def address_text(address: IAddress) -> str:
    """C{127.0.0.1:25}, C{[::1]:25}, or the path of a UNIX socket."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return os.fsdecode(address.name or b"") if isinstance(address, UNIXAddress) else str(address)


def _print(counts: Mapping[str, float | str | None]) -> None:
    print(msgspec.json.encode(counts).decode(), flush=True)
