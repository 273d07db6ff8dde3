"""
One message on its way in: its envelope so far, and its content, in memory while that is small and in a file when it is
not.

It does not know SMTP's order of commands, who may relay, or what the spool does. It has the behaviour of Postfix's
cleanup(8) where that looks at size, hops and duplicates.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from typing import BinaryIO

from twisted.logger import Logger

from smtpreuse.intake.header import HeaderReader
from smtpreuse.interfaces import ISpool
from smtpreuse.model.content import Content, FileContent, MemoryContent
from smtpreuse.model.message import Message, Recipient
from smtpreuse.smtp.command import MailFrom

# Up to here content lives in memory and in the spool's database; above in a file of its own.
MEMORY_LIMIT = 256 * 1024
# So much more content is asked room for at a time: the spool's reserve (64 MiB) holds what 256 clients, who ask at the
# same moment, may write before they ask again.
ROOM_STEP = 256 * 1024
FULL = "452 4.3.1 Insufficient system storage"
NOT_STORED = "451 4.3.0 Error: queue file write error"
_QUOTED_PAIR = re.compile(r"\\(.)")
_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Postfix's hopcount_limit.
HOPS_LIMIT = 50


class Arrival:
    """
    One message between MAIL and the reply to its final dot.

    @ivar recipients: accepted so far.
    @ivar header: what is known of its header.
    @ivar queue_id: given when content begins; empty before.
    """

    _log = Logger()

    def __init__(self, mail: MailFrom, arrived: float, size_limit: int, spool: ISpool) -> None:
        """
        @param arrived: UNIX time of MAIL.
        @param size_limit: of the content as the client sends it, in octets; 0 for none.
        @param spool: asked for a file and for room; the message is not given to it here.
        """
        self.mail = mail
        self.recipients: list[Recipient] = []
        self.header = HeaderReader()
        self.queue_id = ""
        self._arrived = arrived
        self._limit = size_limit
        self._spool = spool
        self._known: set[str] = set()
        self._parts: list[bytes] = []
        self._held = 0
        self._stored = 0
        self._allowed = 0
        self._taken = 0
        self._path = ""
        self._file: BinaryIO | None = None
        self._refusal: str | None = None

    def knows(self, address: str) -> bool:
        """Whether this address, but for quotes and the case of its domain, is among the recipients."""
        return _folded(address) in self._known

    def add(self, recipient: Recipient) -> None:
        """Take a recipient in."""
        self._known.add(_folded(recipient.address))
        self.recipients.append(recipient)

    def begin(self, queue_id: str, trace: bytes) -> None:
        """Content follows; C{trace} goes before it."""
        self.queue_id = queue_id
        self._keep(trace)

    def take(self, octets: bytes) -> None:
        """Take the next part of the content. What will be refused anyway is counted and not kept."""
        self._taken += len(octets)
        if self._refusal is not None:
            return
        if self._limit and self._taken > self._limit:
            self._refuse("552 5.3.4 Error: message too big")
            return
        self.header.feed(octets)
        if self.header.hops > HOPS_LIMIT:
            self._refuse("554 5.4.6 Error: too many hops")
            return
        self._keep(octets)

    def finish(self) -> Content | str:
        """
        @return: the whole content, or the reply that refuses it.
        """
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as problem:
                self._broke(problem)
        if self._refusal is not None:
            return self._refusal
        if self._path:
            return FileContent(self._path, self._stored)
        return MemoryContent(b"".join(self._parts))

    def message(self, size: int, client: str) -> Message:
        """
        @param size: octets of the whole content.
        @param client: C{host[address]}.
        """
        return Message(
            queue_id=self.queue_id,
            arrived=self._arrived,
            sender=self.mail.sender,
            size=size,
            body=self.mail.body,
            client=client,
            held=any(recipient.held for recipient in self.recipients),
            recipients=tuple(self.recipients),
        )

    def discard(self) -> None:
        """The transaction failed: leave nothing behind."""
        self._parts = []
        self._held = 0
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = ""

    def _keep(self, octets: bytes) -> None:
        if self._file is None:
            self._parts.append(octets)
            self._held += len(octets)
            if self._held <= MEMORY_LIMIT:
                return
            octets, self._parts, self._held = b"".join(self._parts), [], 0
        if not self._has_room(len(octets)):
            self._refuse(FULL)
            return
        try:
            if self._file is None:
                self._path = self._spool.scratch()
                self._file = open(self._path, "wb")  # noqa: SIM115  # it stays open over many parts
            self._file.write(octets)
            self._stored += len(octets)
        except OSError as problem:
            self._broke(problem)

    def _has_room(self, octets: int) -> bool:
        """Whether the file may grow by so much."""
        wanted = self._stored + octets
        if wanted > self._allowed:
            step = max(octets, ROOM_STEP)
            if not self._spool.room(step):
                return False
            self._allowed = self._stored + step
        return True

    def _broke(self, problem: OSError) -> None:
        if problem.errno in _FULL_ERRORS:
            self._refuse(FULL)
            return
        self._log.error("content not kept: queue_id={id} reason={why}", id=self.queue_id, why=str(problem))
        self._refuse(NOT_STORED)

    def _refuse(self, text: str) -> None:
        self._refusal = text
        self.discard()


def _folded(address: str) -> str:
    # Local parts that differ by case may be two people (RFC 5321 section 2.4): one copy too many loses nothing.
    local, at, domain = address.rpartition("@")
    if not at or domain.endswith('"'):
        return address
    if local.startswith('"'):
        # Quotes say nothing of who is meant (RFC 5321 section 4.1.2).
        local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
    return local + at + domain.lower()
