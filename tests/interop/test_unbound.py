"""
The resolver against a real recursive name server, unbound, that answers for a zone of its own.
"""

from __future__ import annotations

import os
import subprocess

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from smtpreuse.dns.resolver import Resolver
from smtpreuse.dns.transport import Exchange
from smtpreuse.errors import DNSError, NoSuchName, NoSuchRecords
from smtpreuse.model.nexthop import Endpoint
from tests.peers import program
from tests.peers.postfix import TRIES, free_port

REACTOR = IReactorTCP(reactor)
CLOCK = IReactorTime(reactor)
# Times a tenth of a second, for the server to start.
PATIENCE = 600
# More than fit into the 1,232 octets that are asked for over UDP.
MANY = 60

ZONE = [
    "example.test. 600 IN SOA ns.example.test. root.example.test. 1 3600 600 86400 120",
    "example.test. 600 IN MX 10 mx1.example.test.",
    "example.test. 600 IN MX 20 mx2.example.test.",
    "mx1.example.test. 600 IN A 192.0.2.1",
    "mx1.example.test. 600 IN AAAA 2001:db8::1",
    "alias.example.test. 600 IN CNAME mx1.example.test.",
    "null.example.test. 600 IN MX 0 .",
    *(f"many.example.test. 600 IN MX {number} mail-exchanger-{number}.example.test." for number in range(MANY)),
]
CONFIGURATION = """
server:
  interface: 127.0.0.1
  port: {port}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  logfile: "{directory}/log"
  module-config: "iterator"
  num-threads: 1
  local-zone: "test." transparent
  local-zone: "example.test." static
{zone}
  local-zone: "refused.test." refuse
remote-control:
  control-enable: no
"""


class UnboundTests(TestCase):
    """What a real server says is understood."""

    async def setUp(self) -> None:
        unbound = program("unbound")
        directory = os.path.abspath(self.mktemp())
        os.makedirs(directory)
        for _ in range(TRIES):
            self.port = free_port()
            self.resolver = Resolver(CLOCK.seconds, Exchange(REACTOR).ask, [Endpoint("127.0.0.1", self.port)])
            self.launch(unbound, directory)
            if await self.started():
                return
        self.fail("unbound ended each time")

    def launch(self, unbound: str, directory: str) -> None:
        """Start the server."""
        zone = "\n".join(f"  local-data: '{record}'" for record in ZONE)
        configuration = os.path.join(directory, "unbound.conf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(CONFIGURATION.format(port=self.port, directory=directory, zone=zone))
        self.process = subprocess.Popen([unbound, "-d", "-c", configuration])
        self.addCleanup(self.stop, self.process)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End the server."""
        process.terminate()
        process.wait()

    async def started(self) -> bool:
        """Wait until it answers; whether it does, which it does not when somebody else has its port."""
        for _ in range(PATIENCE):
            if self.process.poll() is not None:
                return False
            resolver = Resolver(CLOCK.seconds, Exchange(REACTOR).ask, [Endpoint("127.0.0.1", self.port)])
            try:
                await resolver.mx("example.test")
                return True
            except DNSError:
                await deferLater(CLOCK, 0.1)
        raise AssertionError("unbound did not answer")

    async def test_answers(self) -> None:
        """Mail hosts, addresses of both families, an alias, a null MX."""
        answer = await self.resolver.mx("Example.test")
        self.assertEqual(
            sorted((record.preference, record.host) for record in answer.records),
            [(10, "mx1.example.test"), (20, "mx2.example.test")],
        )
        self.assertEqual((await self.resolver.addresses("mx1.example.test", False)).addresses, ("192.0.2.1",))
        self.assertEqual((await self.resolver.addresses("mx1.example.test", True)).addresses, ("2001:db8::1",))
        self.assertEqual((await self.resolver.addresses("alias.example.test", False)).addresses, ("192.0.2.1",))
        self.assertEqual([record.host for record in (await self.resolver.mx("null.example.test")).records], [""])

    async def test_large(self) -> None:
        """What is too large for UDP comes over TCP."""
        self.assertEqual(len((await self.resolver.mx("many.example.test")).records), MANY)

    async def test_nothing(self) -> None:
        """A name that is not there, a type that is not there, and a zone that is refused."""
        await self.assertFailure(Deferred.fromCoroutine(self.resolver.mx("gone.example.test")), NoSuchName)
        await self.assertFailure(Deferred.fromCoroutine(self.resolver.addresses("mx2.example.test", False)), NoSuchName)
        await self.assertFailure(Deferred.fromCoroutine(self.resolver.mx("mx1.example.test")), NoSuchRecords)
        error = await self.assertFailure(Deferred.fromCoroutine(self.resolver.mx("refused.test")), DNSError)
        self.assertTrue(error.temporary)
