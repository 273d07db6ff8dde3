"""
C{smtpreuse demo}: the whole way of some hundred messages on this machine. A destination that asks for STARTTLS, the
service as its users start it, mail through it, and what came of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import partial
from secrets import token_hex

import msgspec
from attrs import asdict, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from smtpreuse.cli.certificate import made_now
from smtpreuse.cli.child import ServiceProcess
from smtpreuse.cli.destination import Destination
from smtpreuse.cli.habits import Demand, Habits
from smtpreuse.cli.injection import Injection, Mailing
from smtpreuse.cli.options import check_given, positive
from smtpreuse.cli.program import IProgramReactor, run
from smtpreuse.cli.progress import Progress
from smtpreuse.cli.sink import address_text
from smtpreuse.roles.configuration import startable_settings

CONFIGURATION = """\
# What the demonstration ran with.
myhostname = demo.test
mynetworks = 127.0.0.0/8
queue_directory = spool
maillog_file = maillog
# All mail goes to the demonstration's own destination, over TLS.
relayhost = {relay}
smtp_tls_security_level = encrypt
"""
# Seconds without a message arriving after which the rest counts as missing.
STALL_LIMIT = 30.0
_TICK = 0.1


@frozen(kw_only=True)
class Report:
    """What came of it: what C{smtpreuse demo --json} prints."""

    messages: int
    delivered: int
    missing: int
    doubled: int
    connections: int
    tls_handshakes: int
    messages_per_connection: float
    seconds: float
    messages_per_second: float

    @property
    def good(self) -> bool:
        """Whether every message arrived, once."""
        return self.missing == 0 and self.doubled == 0


class Arrival:
    """Waits for messages to arrive at a destination."""

    def __init__(self, clock: IReactorTime, destination: Destination, progress: Progress, total: int) -> None:
        self._clock = clock
        self._destination = destination
        self._progress = progress
        self._total = total
        self.last = clock.seconds()
        destination.on_message = self._came

    def expect(self, total: int) -> None:
        """No more than so many are on their way."""
        self._total = total

    async def wait(self) -> None:
        """Until all are there, or none came for L{STALL_LIMIT} seconds."""
        self.last = self._clock.seconds()
        watch = LoopingCall(self._look)
        watch.clock = self._clock
        self._watch = watch
        await watch.start(_TICK)
        self._progress.clear()

    def _came(self) -> None:
        self.last = self._clock.seconds()

    def _look(self) -> None:
        tally = self._destination.tally
        done = tally.messages - tally.doubled
        self._progress.show(min(done, self._total))
        if done >= self._total or self._clock.seconds() - self.last > STALL_LIMIT:
            self._watch.stop()


class Demo:
    """One demonstration, in a directory of its own."""

    def __init__(self, arguments: argparse.Namespace, reactor: IProgramReactor) -> None:
        self._arguments = arguments
        self._reactor = reactor
        self._destination = Destination(reactor, Habits(demand=Demand.REQUIRED), made_now())
        self._service = ServiceProcess(reactor)
        self._directory = tempfile.mkdtemp(prefix="smtpreuse-demo-")
        self._running = False

    async def show(self) -> Report:
        """
        Do it all.

        @raise ConfigurationError: when what C{-o} sets is wrong.
        @raise SmtpreuseError: when the service does not start.
        """
        wanted: int = self._arguments.messages
        try:
            began, ended = await self._deliver(wanted)
        finally:
            await self._clear()
        tally = self._destination.tally
        delivered = tally.messages - tally.doubled
        seconds = ended - began
        return Report(
            messages=wanted,
            delivered=delivered,
            missing=wanted - delivered,
            doubled=tally.doubled,
            connections=tally.connections,
            tls_handshakes=tally.tls_handshakes,
            messages_per_connection=round(tally.messages / tally.connections, 1) if tally.connections else 0.0,
            seconds=round(seconds, 3),
            messages_per_second=round(delivered / seconds, 1) if seconds > 0 else 0.0,
        )

    async def _clear(self) -> None:
        """End the service and leave nothing behind but what was asked to be kept."""
        if self._running:
            try:
                await self._service.stop()
            except CancelledError:
                # A signal came while it was ending: it has to be gone all the same.
                await self._service.stop()
        if self._arguments.keep:
            print(f"kept: {self._directory}", file=sys.stderr)
        else:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _deliver(self, wanted: int) -> tuple[float, float]:
        """Send, and wait for the arrivals; when it began and when the last message came."""
        listening = self._reactor.listenTCP(0, self._destination, interface="127.0.0.1")
        address = await self._start(address_text(listening.getHost()))
        host, _, port = address.rpartition(":")
        mailing = Mailing(
            run=token_hex(8),
            messages=wanted,
            size=self._arguments.size,
            recipients=1,
            sender="sender@demo.test",
            recipient="recipient%m@sink.test",
        )
        injection = Injection(self._reactor, TCP4ClientEndpoint(self._reactor, host, int(port)), mailing)
        progress = Progress(sys.stderr, wanted, "delivered")
        arrival = Arrival(self._reactor, self._destination, progress, wanted)
        began = self._reactor.seconds()
        sending = Deferred.fromCoroutine(self._send(injection, arrival))
        await arrival.wait()
        sending.cancel()
        for complaint in injection.complaints():
            print(f"demo: while sending to the service: {complaint}", file=sys.stderr)
        return began, arrival.last

    async def _send(self, injection: Injection, arrival: Arrival) -> None:
        # The last message may have arrived before the service's last reply is here, or some may never come.
        with suppress(CancelledError):
            count = await injection.send(self._arguments.connections)
            arrival.expect(count.accepted + count.unknown)

    async def _start(self, relay: str) -> str:
        configuration = os.path.join(self._directory, "main.cf")
        with open(configuration, "w") as file:
            file.write(CONFIGURATION.format(relay="[{}]:{}".format(*relay.split(":"))))
        startable_settings(configuration, self._arguments.overrides)
        options = ["--config", configuration, "--listen", "tcp:0:interface=127.0.0.1"]
        for override in self._arguments.overrides:
            options += ["-o", override]
        self._running = True
        self._service.start(self._reactor, options, self._directory)
        return await self._service.address()


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("demo", parents=[common], help="send mail through a service on this machine")
    parser.add_argument("--messages", type=positive, default=500, metavar="N", help="default %(default)s")
    parser.add_argument("--size", type=positive, default=4096, metavar="OCTETS", help="default %(default)s")
    parser.add_argument(
        "--connections", type=positive, default=20, metavar="N", help="to the service; default %(default)s"
    )
    parser.add_argument("--keep", action="store_true", help="keep configuration, queue and log")
    parser.set_defaults(run=command)


def command(arguments: argparse.Namespace) -> int:
    """Run it."""
    check_given(arguments)
    return run(partial(demonstrate, arguments))


async def demonstrate(arguments: argparse.Namespace, reactor: IProgramReactor) -> int:
    """Show it, and print what came of it; the status is 1 when a message is missing or doubled."""
    report = await Demo(arguments, reactor).show()
    print(msgspec.json.encode(asdict(report)).decode() if arguments.json else table(report))
    return 0 if report.good else 1


def table(report: Report) -> str:
    """What came of it, for people."""
    rows = [
        ("messages sent", f"{report.messages}"),
        ("delivered", f"{report.delivered}"),
        ("missing", f"{report.missing}"),
        ("doubled", f"{report.doubled}"),
        ("connections to the destination", f"{report.connections}"),
        ("TLS handshakes", f"{report.tls_handshakes}"),
        ("messages per connection", f"{report.messages_per_connection:.1f}"),
        ("seconds, from the first to the last", f"{report.seconds:.2f}"),
        ("messages per second", f"{report.messages_per_second:.0f}"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value:>8}" for name, value in rows]
    verdict = "every message arrived, once" if report.good else "this is not as it should be"
    return "\n".join([*lines, verdict])
