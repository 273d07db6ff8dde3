"""
How much memory a long queue costs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.service import LIMIT, Service, environment, until
from tests.system.world import SystemTestCase

MIB = 2**20
ROOT = Path(__file__).parents[2]


def filled(running: Service, count: int, size: int, *domains: str, limit: float = 240) -> None:
    """Put so many messages of so many octets into the queue of a service that does not run."""
    command = [sys.executable, "-m", "tests.system.fill", str(running.directory / "main.cf"), str(count), str(size)]
    subprocess.run([*command, *domains], cwd=ROOT, env=environment(measured=False), check=True, timeout=limit)


def most_resident(running: Service) -> int:
    """The most octets that were resident since the start."""
    status = Path(f"/proc/{running.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


class MemoryTests(SystemTestCase):
    """200,000 messages in the queue cost less than 120 MiB, whatever becomes of them."""

    messages = 200_000
    limit = 120 * MIB

    def check(self, running: Service, when: str) -> None:
        """It is under the limit, and was so since the start."""
        used = most_resident(running)
        print(f"\n{self.id()}: {used / MIB:.0f} MiB {when}")
        self.assertLess(used, self.limit, when)

    def test_one_slow_site(self) -> None:
        """All of them for one site that does not answer, and then answers."""
        sink = self.destination(stalls=True)
        running = self.service(sink)
        running.measured = False
        filled(running, self.messages, 400, "example.test")
        running.start()
        until(lambda: sink.stalled >= 5, lambda: f"{sink.stalled} messages are held")
        self.assertEqual(sum(self.queue(running).values()), self.messages)
        self.check(running, "with its sessions busy")
        sink.manners.stalls = False
        sink.stop()
        sink.start()
        until(lambda: len(sink.taken) >= 3000, lambda: f"{len(sink.taken)} arrived")
        self.check(running, "with 3,000 delivered")
        self.assertEqual(running.stop(), 0)

    def test_several_sites(self) -> None:
        """One of four sites is down, one does not answer, two take mail: they get it, and memory stays bounded."""
        up, other, down, slow = (self.destination(stalls=name == "slow") for name in ("up", "other", "down", "slow"))
        down.stop()
        sites = {"up.test": up, "other.test": other, "down.test": down, "slow.test": slow}
        table = ", ".join(f"{{ {domain} = smtp:{sink.relayhost} }}" for domain, sink in sites.items())
        running = self.service(transport_maps=f"inline:{{ {table} }}", minimal_backoff_time="60s")
        running.measured = False
        filled(running, self.messages, 400, *sites)
        running.start()
        until(
            lambda: min(len(up.taken), len(other.taken)) >= 2000 and slow.stalled >= 5,
            lambda: f"arrived: {len(up.taken)} and {len(other.taken)}; held: {slow.stalled}",
            2 * LIMIT,
        )
        until(lambda: "status=deferred" in running.log(), lambda: "nothing is deferred")
        self.check(running, "with 4,000 delivered")
        running.kill()
