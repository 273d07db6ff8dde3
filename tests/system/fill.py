"""
Fills the queue of a service that does not run: C{fill CONFIG COUNT SIZE DOMAIN...} puts so many messages of so many
octets into it, for one recipient each, the domains in turn.
"""

from __future__ import annotations

import sys
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpreuse.config.load import read_settings
from smtpreuse.model.content import MemoryContent
from smtpreuse.model.message import Message, Recipient
from smtpreuse.model.queueid import QueueIds
from smtpreuse.routing.transport import Transport
from smtpreuse.spool.sqlite import SQLiteSpool
from tests.system.injection import letter

# Messages of one transaction.
BATCH = 2000


async def fill(config: str, count: int, size: int, domains: list[str]) -> None:
    """See the module."""
    settings = read_settings(config)
    transport = Transport(settings)
    spool = SQLiteSpool(
        settings.queue_directory, reactor, reactor, queue_minfree=0, message_size_limit=0, reroute=transport.hop,
        fingerprint=transport.fingerprint,
    )  # fmt: skip
    spool.open()
    ids, now = QueueIds(reactor.seconds, 1), time.time()
    try:
        for start in range(0, count, BATCH):
            batch = []
            for number in range(start, min(start + BATCH, count)):
                content = letter(str(number), size).content
                address = f"to{number}@{domains[number % len(domains)]}"
                message = Message(
                    queue_id=ids.next(), arrived=now, sender="from@example.org", size=len(content), client="fill",
                    recipients=(Recipient(address=address, hop=transport.hop(address)),),
                )  # fmt: skip
                batch.append((message, MemoryContent(content)))
            await spool.record([], batch)
    finally:
        await spool.close()


def main(config: str, count: str, size: str, *domains: str) -> int:
    """
    @return: the exit status.
    """
    failed: list[Failure] = []
    filling = Deferred.fromCoroutine(fill(config, int(count), int(size), list(domains)))
    filling.addErrback(failed.append).addBoth(lambda _: reactor.callWhenRunning(reactor.stop))
    reactor.run()
    for failure in failed:
        failure.printTraceback()
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
