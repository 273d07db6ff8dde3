"""
A process that stores mail, for tests that watch or kill it: C{spool_child MODE DIRECTORY}. It writes a line to standard
output whenever something has been promised.

C{append}: five messages, one after the other, each with C{begin N} before and C{end N} behind it. C{kill N}: appends
and records as fast as it can, and kills itself when N promises were made. C{leave}: as C{append}, but it never closes
the spool.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.message import Message, Recipient
from smtpreuse.model.queueview import Recorded
from smtpreuse.spool.sqlite import SQLiteSpool


def spool_at(directory: str) -> SQLiteSpool:
    """A spool that lets its file system be filled."""
    return SQLiteSpool(
        directory, reactor, reactor, queue_minfree=0, message_size_limit=0, reroute=lambda _: "smtp:example.org",
        fingerprint="one",
    )  # fmt: skip


def mail(queue_id: str, size: int = 4096) -> tuple[Message, Content]:
    """A message whose content can be told from all others."""
    content = (queue_id.encode() + b"\r\n").ljust(size, b".")
    recipients = tuple(Recipient(address=f"{name}@example.org", hop="smtp:example.org") for name in "ab")
    envelope = Message(
        queue_id=queue_id, arrived=1.0, sender="s@example.com", size=size, client="test", recipients=recipients
    )
    return envelope, MemoryContent(content)


def say(line: str) -> None:
    """One system call for each line: what was said before a kill has been said."""
    os.write(1, line.encode() + b"\n")


async def append(spool: SQLiteSpool) -> None:
    """See the module."""
    for number in range(5):
        say(f"begin {number}")
        await spool.append(*mail(f"Q{number}"))
        say(f"end {number}")


async def stream(spool: SQLiteSpool, worker: int, promises: count[int], most: int) -> None:
    """Store messages; every second one ends at once, in the commit that stores a bounce."""
    for number in count():
        queue_id = f"W{worker}Q{number}"
        stored = await spool.append(*mail(queue_id, 300_000 if number % 10 == 9 else 4096))
        promised(f"stored {queue_id}", promises, most)
        if number % 2:
            done = [Recorded(queue_id=queue_id, row=r.row, hop=r.hop) for r in stored.recipients]
            await spool.record(done, [mail(f"B{queue_id}")])
            promised(f"bounced {queue_id}", promises, most)


async def streams(spool: SQLiteSpool, most: int) -> None:
    """See the module."""
    promises = count(1)
    for waiting in [Deferred.fromCoroutine(stream(spool, worker, promises, most)) for worker in range(20)]:
        await waiting


def promised(line: str, promises: count[int], most: int) -> None:
    """A promise was made, perhaps the last one."""
    say(line)
    if next(promises) >= most:
        os.kill(os.getpid(), signal.SIGKILL)


def main(mode: str, directory: str, most: int = 0) -> None:
    """Run in this mode."""
    spool = spool_at(directory)
    spool.open()

    async def run() -> None:
        if mode == "kill":
            await streams(spool, most)
        else:
            await append(spool)
            await spool.content("Q0")
        if mode != "leave":
            await spool.close()

    def failed(failure: Failure) -> None:
        failure.printTraceback(sys.stderr)

    Deferred.fromCoroutine(run()).addErrback(failed).addBoth(lambda _: reactor.stop())
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
