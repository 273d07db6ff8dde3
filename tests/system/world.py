"""
What the tests of the running service have in common: one service, one destination, and what is to be true of all mail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.service import LIMIT, Service, environment, service, until
from tests.system.destination import Destination, Manners
from tests.system.injection import Letter

# What makes the service quick to try again, and its mail stay on this host.
QUICK = {"smtp_host_lookup": "native", "smtp_dns_support_level": "disabled", "minimal_backoff_time": "1s"}


class SystemTestCase(SynchronousTestCase):
    """A service between a client and a destination, each of them real."""

    def destination(
        self, *, tls: bool = False, stalls: bool = False, most_connections: int = 0, most_messages: int = 0
    ) -> Destination:
        """A destination with these manners that listens, and ends with the test."""
        made = Destination(
            Manners(tls=tls, stalls=stalls, most_connections=most_connections, most_messages=most_messages)
        )
        self.addCleanup(made.remove)
        return made.start()

    def service(self, destination: Destination | None = None, **parameters: str) -> Service:
        """A service that sends all to this destination; it is not started yet."""
        relay = {"relayhost": destination.relayhost} if destination is not None else {}
        return service(self, **{**QUICK, **relay, **parameters})

    def arrived(self, destination: Destination, mail: Mapping[str, Letter], limit: float = LIMIT) -> None:
        """
        Wait until all of this mail has arrived, for all its recipients.

        @param limit: seconds in which nothing arrives.
        """
        wanted = {(each.identity, recipient) for each in mail.values() for recipient in each.recipients}

        def missing() -> set[tuple[str, str]]:
            return wanted - {(taken.identity, taken.recipient) for taken in list(destination.taken)}

        until(
            lambda: not missing(),
            lambda: f"{len(missing())} of {len(wanted)} did not arrive",
            limit,
            progress=lambda: len(destination.taken),
        )

    def check_whole(self, destination: Destination, mail: Iterable[Letter]) -> None:
        """What arrived is what was sent, to the last octet."""
        digests = {each.identity: each.digest for each in mail}
        wrong = [taken for taken in destination.taken if digests.get(taken.identity) != taken.digest]
        self.assertEqual(wrong, [])

    def check_single(self, destination: Destination) -> None:
        """Nothing arrived twice."""
        counts = Counter((taken.identity, taken.recipient) for taken in destination.taken)
        self.assertEqual({key: count for key, count in counts.items() if count > 1}, {})

    def queue(self, running: Service) -> dict[str, int]:
        """The messages in each queue, as C{smtpreuse status} has them."""
        (status,) = running.ask("status")
        counts = status["queue"]
        assert isinstance(counts, dict)
        return counts

    def empty(self, running: Service) -> None:
        """Wait until the queue is empty."""
        left = self.queue(running)

        def look() -> int:
            nonlocal left
            left = self.queue(running)
            return sum(left.values())

        until(lambda: not any(left.values()), lambda: f"the queue has {left}", progress=look)

    def run_command(self, running: Service, *words: str) -> subprocess.CompletedProcess[str]:
        """C{smtpreuse WORD...} as a user runs it."""
        command = [sys.executable, "-m", "smtpreuse.cli.main", *words, "--config", str(running.directory / "main.cf")]
        return subprocess.run(
            command, cwd=running.directory, env=environment(), capture_output=True, text=True, timeout=LIMIT
        )


def objects(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What a command printed with C{--json}."""
    return [json.loads(line) for line in ended.stdout.splitlines()]
