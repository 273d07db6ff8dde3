"""
C{smtpreuse source}: sends made-up mail to a server, as fast as it is taken, and says what became of it.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from functools import partial
from secrets import token_hex

import msgspec
from attrs import asdict, frozen
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint

from smtpreuse.cli.injection import Injection, Mailing
from smtpreuse.cli.options import check_given, positive
from smtpreuse.cli.program import IProgramReactor, run


@frozen(kw_only=True)
class Result:
    """
    What C{smtpreuse source} prints.

    @ivar began: UNIX time of the first attempt to connect.
    """

    sent: int
    accepted: int
    rejected: int
    seconds: float
    messages_per_second: float
    began: float


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("source", parents=[common], help="send made-up mail to a server")
    parser.add_argument("server", type=_server, metavar="HOST:PORT", help="where to send, in plaintext")
    parser.add_argument("--messages", type=positive, default=100, metavar="N", help="default %(default)s")
    parser.add_argument("--size", type=positive, default=4096, metavar="OCTETS", help="default %(default)s")
    parser.add_argument("--connections", type=positive, default=10, metavar="N", help="default %(default)s")
    parser.add_argument("--recipients", type=positive, default=1, metavar="N", help="for each message, default 1")
    parser.add_argument("--from", dest="sender", default="sender@source.test", metavar="ADDRESS")
    parser.add_argument(
        "--to",
        default="recipient%r@sink.test",
        metavar="PATTERN",
        help="%%m is the number of the message, %%r that of the recipient in it; default recipient%%r@sink.test",
    )
    parser.set_defaults(run=command)


def command(arguments: argparse.Namespace) -> int:
    """Run it."""
    check_given(arguments)
    return run(partial(send, arguments))


async def send(arguments: argparse.Namespace, reactor: IProgramReactor) -> int:
    """Send the mail that was asked for; the status is 0 when every message was accepted. A signal ends it sooner."""
    mailing = Mailing(
        run=token_hex(8),
        messages=arguments.messages,
        size=arguments.size,
        recipients=arguments.recipients,
        sender=arguments.sender,
        recipient=arguments.to,
    )
    endpoint = _endpoint(arguments.server, reactor)
    injection = Injection(reactor, endpoint, mailing)
    began = reactor.seconds()
    with suppress(CancelledError, ConnectingCancelledError):  # by a signal: what was done so far is told
        await injection.send(arguments.connections)
    count = injection.count
    seconds = reactor.seconds() - began
    result = Result(
        sent=count.sent,
        accepted=count.accepted,
        rejected=count.rejected,
        seconds=round(seconds, 3),
        messages_per_second=round(count.accepted / seconds, 1) if seconds > 0 else 0.0,
        began=began,
    )
    for complaint in injection.complaints():
        print(f"source: {complaint}", file=sys.stderr)
    print(msgspec.json.encode(asdict(result)).decode() if arguments.json else _sentence(result))
    return 0 if count.accepted == mailing.messages else 1


def _sentence(result: Result) -> str:
    return (
        f"{result.sent} sent, {result.accepted} accepted, {result.rejected} rejected"
        f" in {result.seconds:.2f} s: {result.messages_per_second:.0f} messages/s"
    )


def _endpoint(server: str, reactor: IProgramReactor) -> IStreamClientEndpoint:
    host, _, port = server.rpartition(":")
    return HostnameEndpoint(reactor, host.strip("[]"), int(port))


def _server(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text
